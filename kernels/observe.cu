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

// The same with a level per pixel: relative float32 [num_pixels] times sigma; a pixel where it is
// negative was not observed and becomes 0.
FOR_EACH(pixel_noise,
         (i64 num_samples, i64 num_elements, i64 num_voxels, i64 num_pixels, u32 stage,
          const u32* __restrict__ keys, const float* __restrict__ sigma,
          const float* __restrict__ relative, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const Words words =
                 philox((u32)element, key[4] + stage, key[2], key[3], key[0], key[1]);
             float normal[4];
             normal_pair(words.a, words.b, normal, normal + 1);
             normal_pair(words.c, words.d, normal + 2, normal + 3);
             float* out = cube + sample * num_voxels;
             for (int k = 0; k < 4; ++k) {
                 const i64 voxel = 4 * element + k;
                 if (voxel < num_voxels) {
                     const float of_pixel = relative[voxel % num_pixels];
                     const float value = out[voxel] + sigma[sample] * of_pixel * normal[k];
                     out[voxel] = of_pixel < 0.0f ? 0.0f : value;
                 }
             }
         })

// e^-x, 0 <= x <= 8, relative error 1e-13: Taylor's series for x / 256, squared eight times.
INLINE double exp_minus(double x) {
    const double y = x * -0.00390625;
    double p = 0.0001984126984126984;
    p = p * y + 0.001388888888888889;
    p = p * y + 0.008333333333333333;
    p = p * y + 0.041666666666666664;
    p = p * y + 0.16666666666666666;
    p = p * y + 0.5;
    p = p * y + 1.0;
    p = p * y + 1.0;
    for (int k = 0; k < 8; ++k) p = p * p;
    return p;
}

// Poisson number with a mean <= 8 from 52 random bits, by summing its probabilities.
INLINE int poisson(u32 high, u32 low, double mean) {
    const i64 bits = (i64)(((u64)high << 20) | (low >> 12));
    const double u = ((double)bits + 0.5) * 2.220446049250313e-16;
    double probability = exp_minus(mean);
    double below = probability;
    int number = 0;
    while (u > below && probability > 1e-18) {
        ++number;
        probability = probability * (mean / (double)number);
        below += probability;
    }
    return number;
}

// Radio sources. An element is a pixel; a mean above 8 is shared by several parts of the pixel. A
// part's number of sources comes from random element `place`, its source n from element
// (n + 1) * places + place. Flux: S in [S1, S1 2^log2_range] with dN/dS ~ S^-slope, inverted:
// S / S1 = (w0 + u (1 - w0))^(1/a), a = 1 - slope, w0 = 2^(a log2_range). By fine channel, of which
// by_freq make one: log2_nu float32 = log2(nu / 31 GHz), response float32 = what 1 mJy adds.
FOR_EACH(radio_sources,
         (i64 num_samples, i64 num_elements, int num_freq, int by_freq, u32 stage,
          double pixel_deg2, float log2_lowest, float log2_range, float alpha_mean,
          float alpha_width, const u32* __restrict__ keys, const float* __restrict__ density,
          const float* __restrict__ slope, const float* __restrict__ log2_nu,
          const float* __restrict__ response, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const double expected = (double)density[sample] * pixel_deg2;
             const int parts = 1 + (int)(expected * 0.125);
             const i64 places = num_elements * parts;
             const float difference = 1.0f - slope[sample];
             const float a = difference * difference < 1e-6f ? 1e-3f : difference;
             const float w0 = portable_exp2(a * log2_range);
             float* spectrum = cube + sample * num_freq * num_elements + element;
             for (int part = 0; part < parts; ++part) {
                 const i64 place = element * parts + part;
                 const Words first =
                     philox((u32)place, key[4] + stage, key[2], key[3], key[0], key[1]);
                 const int number = poisson(first.a, first.b, expected / (double)parts);
                 for (int n = 0; n < number; ++n) {
                     const Words words = philox((u32)((n + 1) * places + place), key[4] + stage,
                                                key[2], key[3], key[0], key[1]);
                     const float w = w0 + unit_interval(words.a) * (1.0f - w0);
                     const float log2_flux = log2_lowest + portable_log2(w) / a;
                     float normal[2];
                     normal_pair(words.b, words.c, normal, normal + 1);
                     const float alpha = alpha_mean + alpha_width * normal[0];
                     for (int freq = 0; freq < num_freq; ++freq) {
                         float sum = 0.0f;
                         for (int k = freq * by_freq; k < (freq + 1) * by_freq; ++k)
                             sum += response[k] * portable_exp2(log2_flux - alpha * log2_nu[k]);
                         spectrum[freq * num_elements] = spectrum[freq * num_elements] + sum;
                     }
                 }
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

// A group of neighbouring voxels that one element works on: their sums are independent, so that a
// compiler makes vectors of them. The last group of a slice may have fewer lanes.
#define GROUP 8

INLINE int lanes_of_group(i64 first, i64 num) {
    return num - first < GROUP ? (int)(num - first) : GROUP;
}

// sum[j] = the sum over k of weight[k * weight_step] in[k * step + j], added in the order of k.
template <typename Real, typename Input>
INLINE void weighted_sums(const Real* __restrict__ weight, i64 weight_step,
                          const Input* __restrict__ in, i64 step, int num_terms, int lanes,
                          Real* __restrict__ sum) {
    for (int j = 0; j < GROUP; ++j) sum[j] = 0;
    for (int k = 0; k < num_terms; ++k)
        for (int j = 0; j < GROUP; ++j)
            if (j < lanes)
                sum[j] = sum[j] + weight[k * weight_step] * (Real)in[k * step + j];
}

// The condition on the lanes is gone where they are a constant.
#define WEIGHTED_SUMS(weight, weight_step, in, step, num_terms, lanes, sum)        \
    if (lanes == GROUP)                                                            \
        weighted_sums(weight, weight_step, in, step, num_terms, GROUP, sum);       \
    else                                                                           \
        weighted_sums(weight, weight_step, in, step, num_terms, lanes, sum);

// A Gaussian beam, one axis of the sky at a time, in two steps. First the axis is moved to the front
// of its slice and given room at both ends: slices [num_elements, num_along] of cube become
// [num_padded, num_elements] of padded, with pixel from[row] of the axis in a row (-1: zero).
// sample = slice * num_padded + row, element = pixel across the axis.
FOR_EACH(beam_pad,
         (i64 num_samples, i64 num_elements, int num_padded, int num_along,
          const int* __restrict__ from, const float* __restrict__ cube,
          float* __restrict__ padded),
         {
             const i64 slice = sample / num_padded;
             const i64 pixel = from[sample - slice * num_padded];
             const float* in = cube + slice * num_elements * num_along;
             padded[sample * num_elements + element] =
                 pixel < 0 ? 0.0f : in[element * num_along + (pixel < 0 ? 0 : pixel)];
         })

// Then every pixel is the sum of the num_taps pixels around it, weights float32 [n_freq, num_taps],
// in that order. sample = slice, element = group of pixels of the slice [num_pixels / num_across,
// num_across]; padded has num_taps - 1 rows more.
FOR_EACH(beam_pass,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_freq, int num_taps,
          int num_across, const float* __restrict__ weights, const float* __restrict__ padded,
          float* __restrict__ cube),
         {
             const float* weight = weights + (sample % num_freq) * num_taps;
             const i64 first = GROUP * element;
             const int lanes = lanes_of_group(first, num_pixels);
             const i64 room = (i64)(num_taps - 1) * num_across;
             const float* in = padded + sample * (num_pixels + room) + first;
             float* out = cube + sample * num_pixels + first;
             float sum[GROUP];
             WEIGHTED_SUMS(weight, 1, in, num_across, num_taps, lanes, sum)
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) out[j] = sum[j];
         })

// Pixels that are not kept become zero: keep int32 [num_elements] of a slice, sample = slice.
FOR_EACH(mask_pixels,
         (i64 num_samples, i64 num_elements, const int* __restrict__ keep,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             cube[voxel] = keep[element] ? cube[voxel] : 0.0f;
         })

// Sums in a fixed order: first the rows of num_ra voxels, sums float64 [rows, 2] = (sum, number of
// voxels in it); with skip_zeros a voxel that is exactly zero does not count.
FOR_EACH(row_sums,
         (i64 num_samples, i64 num_elements, int num_ra, int skip_zeros,
          const float* __restrict__ cube, double* __restrict__ sums),
         {
             const i64 row = sample * num_elements + element;
             const float* in = cube + row * num_ra;
             double sum = 0.0;
             int number = 0;
             for (int k = 0; k < num_ra; ++k) {
                 sum += (double)in[k];
                 number += !skip_zeros | (in[k] != 0.0f);
             }
             sums[2 * row] = sum;
             sums[2 * row + 1] = (double)number;
         })

// The same of squares of the distance from the sample's mean, which is given as (sum, number).
FOR_EACH(row_squares,
         (i64 num_samples, i64 num_elements, int num_ra, const double* __restrict__ total,
          const float* __restrict__ cube, double* __restrict__ sums),
         {
             const i64 row = sample * num_elements + element;
             const float* in = cube + row * num_ra;
             const double mean = total[2 * sample] / total[2 * sample + 1];
             double sum = 0.0;
             for (int k = 0; k < num_ra; ++k) {
                 const double distance = (double)in[k] - mean;
                 sum += distance * distance;
             }
             sums[2 * row] = sum;
             sums[2 * row + 1] = (double)num_ra;
         })

// Then groups of them: rows to slices, slices to the cube. Both arrays are pairs (sum, number).
FOR_EACH(group_sums,
         (i64 num_samples, i64 num_elements, int num_joined, const double* __restrict__ parts,
          double* __restrict__ sums),
         {
             const i64 group = sample * num_elements + element;
             const double* in = parts + 2 * group * num_joined;
             double sum = 0.0;
             double number = 0.0;
             for (int k = 0; k < num_joined; ++k) {
                 sum += in[2 * k];
                 number += in[2 * k + 1];
             }
             sums[2 * group] = sum;
             sums[2 * group + 1] = number;
         })

// A slice without its mean; sums float64 [slices, 2] = (sum, number), sample = slice. With
// skip_zeros a voxel that is exactly zero stays so.
FOR_EACH(subtract_mean,
         (i64 num_samples, i64 num_elements, int skip_zeros, const double* __restrict__ sums,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const double number = sums[2 * sample + 1];
             const double mean = sums[2 * sample] / (number > 0.0 ? number : 1.0);
             const float value = cube[voxel];
             const float result = (float)((double)value - mean);
             cube[voxel] = (skip_zeros != 0) & (value == 0.0f) ? value : result;
         })

// (T - mean) / std of each cube, 0 where std is 0; total and squares float64 [B, 2] = (sum, number).
FOR_EACH(standardise,
         (i64 num_samples, i64 num_elements, const double* __restrict__ total,
          const double* __restrict__ squares, float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             const double mean = total[2 * sample] / total[2 * sample + 1];
             const double variance = squares[2 * sample] / squares[2 * sample + 1];
             const double inverse = variance > 0.0 ? 1.0 / square_root(variance) : 0.0;
             cube[voxel] = (float)(((double)cube[voxel] - mean) * inverse);
         })

// How much of each mode is in a spectrum: amplitudes float64 [B, num_modes, num_pixels] of modes
// float64 [num_modes, num_freq]. sample = (cube, mode), element = group of pixels.
FOR_EACH(mode_amplitudes,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_modes, int num_freq,
          const double* __restrict__ modes, const float* __restrict__ cube,
          double* __restrict__ amplitudes),
         {
             const double* mode = modes + (sample % num_modes) * num_freq;
             const i64 first = GROUP * element;
             const int lanes = lanes_of_group(first, num_pixels);
             const float* in = cube + (sample / num_modes) * num_freq * num_pixels + first;
             double* out = amplitudes + sample * num_pixels + first;
             double sum[GROUP];
             WEIGHTED_SUMS(mode, 1, in, num_pixels, num_freq, lanes, sum)
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) out[j] = sum[j];
         })

// The spectra without their modes. sample = (cube, frequency), element = group of pixels.
FOR_EACH(subtract_modes,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_modes, int num_freq,
          const double* __restrict__ modes, const double* __restrict__ amplitudes,
          float* __restrict__ cube),
         {
             const double* mode = modes + sample % num_freq;
             const i64 first = GROUP * element;
             const int lanes = lanes_of_group(first, num_pixels);
             const double* in = amplitudes + (sample / num_freq) * num_modes * num_pixels + first;
             float* out = cube + sample * num_pixels + first;
             double sum[GROUP];
             WEIGHTED_SUMS(mode, num_freq, in, num_pixels, num_modes, lanes, sum)
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) out[j] = (float)((double)out[j] - sum[j]);
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
