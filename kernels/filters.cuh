// Filters: sums of voxels in a fixed order, means, standardised maps, smooth modes along frequency.
// Part of observe.cu, which says what the arrays are.

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
