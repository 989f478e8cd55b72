// A Gaussian beam on every frequency slice. Part of observe.cu, which says what the arrays are.

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
