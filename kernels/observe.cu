// What happens to a cube after it is painted: one function per map operator.
// Arrays: total int64 [B, voxels] fixed point; cube float32 [B, n_freq, n_dec, n_ra] (uK or Jy/sr),
// contiguous; keys uint32 [B, 6] as in paint.cu; one thread per element, no element shared, so the
// result does not depend on the order.

// Fixed point to float32: cube = total * unit, unit = 1 / scale (times the pooling weight).
FOR_EACH(from_fixed_point,
         (i64 num_samples, i64 num_elements, double unit, const i64* __restrict__ total,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             cube[voxel] = (float)((double)total[voxel] * unit);
         })

// White noise: sigma float32 [B] per voxel. An element is a group of four voxels, which share one
// call of the generator; `stage` is the operator's place in the counter.
FOR_EACH(white_noise,
         (i64 num_samples, i64 num_elements, i64 num_voxels, u32 stage,
          const u32* __restrict__ keys, const float* __restrict__ sigma, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const Words words =
                 philox((u32)element, key[4] + stage, key[2], key[3], key[0], key[1]);
             float normal[4];
             normal_pair(words.a, words.b, normal, normal + 1);
             normal_pair(words.c, words.d, normal + 2, normal + 3);
             const float level = sigma[sample];
             float* out = cube + sample * num_voxels;
             for (int k = 0; k < 4; ++k) {
                 const i64 voxel = 4 * element + k;
                 if (voxel < num_voxels) out[voxel] = out[voxel] + level * normal[k];
             }
         })

// Sum of a block of voxels times `weight` (1, or 1 / number for the mean), in a fixed order.
// num_elements = pooled voxels; the pooled cube is [num_freq, num_dec, num_ra].
FOR_EACH(pool,
         (i64 num_samples, i64 num_elements, int num_dec, int num_ra, int by_freq, int by_dec,
          int by_ra, float weight, const float* __restrict__ fine, float* __restrict__ pooled),
         {
             const i64 ra = element % num_ra;
             const i64 dec = (element / num_ra) % num_dec;
             const i64 freq = element / num_ra / num_dec;
             const i64 wide = (i64)num_ra * by_ra;
             const i64 tall = (i64)num_dec * by_dec;
             const float* in = fine + sample * num_elements * by_freq * by_dec * by_ra;
             double sum = 0.0;
             for (int i = 0; i < by_freq; ++i)
                 for (int j = 0; j < by_dec; ++j)
                     for (int k = 0; k < by_ra; ++k)
                         sum += (double)in[((freq * by_freq + i) * tall + dec * by_dec + j) * wide +
                                           ra * by_ra + k];
             pooled[sample * num_elements + element] = (float)sum * weight;
         })

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
