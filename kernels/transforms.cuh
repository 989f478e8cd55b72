// Transforms of each voxel by itself. Part of observe.cu, which says what the arrays are.

// sign(T) log10(|T| + 1), the transform of Pfeffer, Breysse and Stein 2019 (1905.10376).
FOR_EACH(log_modulus,
         (i64 num_samples, i64 num_elements, float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const float value = cube[voxel];
             const u32 sign = bits_of(value) & 0x80000000u;
             const float magnitude = float_of(bits_of(value) ^ sign);
             const float result = 0.30102999566398120f * portable_log2(magnitude + 1.0f);
             cube[voxel] = float_of(bits_of(result) | sign);
         })

// log10(T + epsilon); T + epsilon counts as `lowest` where it is below.
FOR_EACH(shifted_log10,
         (i64 num_samples, i64 num_elements, float epsilon, float lowest,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const float value = cube[voxel] + epsilon;
             cube[voxel] =
                 0.30102999566398120f * portable_log2(value > lowest ? value : lowest);
         })

// asinh(T / scale) = sign(T) ln(1 + u), u = a + a^2 / (1 + sqrt(1 + a^2)), a = |T| / scale. Of
// 1 + u = w only the digits in w are lost by ln(w) u / (w - 1) (Kahan's log1p). Above 1e4, where
// a^2 might overflow, asinh(a) = ln(a) + ln(2) to 3e-10.
FOR_EACH(scaled_asinh,
         (i64 num_samples, i64 num_elements, float scale, float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const u32 sign = bits_of(cube[voxel]) & 0x80000000u;
             const float ratio = float_of(bits_of(cube[voxel]) ^ sign) / scale;
             const bool large = ratio > 1e4f;
             const float a = large | !(ratio > 1.17549435e-38f) ? 0.0f : ratio;
             const float square = a * a;
             const float u = a + square / (1.0f + square_root(1.0f + square));
             const float w = 1.0f + u;
             const float rest = w - 1.0f;
             const float logarithm = 0.69314718055994531f * portable_log2(large ? ratio : w);
             const float small = rest > 0.0f ? logarithm * (u / (rest > 0.0f ? rest : 1.0f)) : u;
             const float result = large ? logarithm + 0.69314718055994531f : small;
             cube[voxel] = float_of(bits_of(result) | sign);
         })

// sign(T) ((|T| + 1)^factor - 1): log10(|T| + 1) times a factor, float32 [B] (1 changes nothing).
FOR_EACH(scaled_log,
         (i64 num_samples, i64 num_elements, const float* __restrict__ factor,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const float value = cube[voxel];
             const u32 sign = bits_of(value) & 0x80000000u;
             const float magnitude = float_of(bits_of(value) ^ sign);
             const float power = portable_exp2(factor[sample] * portable_log2(magnitude + 1.0f));
             const float result = factor[sample] == 1.0f ? magnitude : power - 1.0f;
             cube[voxel] = float_of(bits_of(result) | sign);
         })
