// Transforms along one axis, as weighted sums of rows. Part of observe.cu, which says what the arrays
// are. Rows are those of slices [num_in, num_across] before and [num_out, num_across] after: row r is
// the sum over its num_terms terms, in their order, of weights[r, term] times row from[r, term].
// Waves, which are complex, lie as two such arrays behind one another, the real parts first; weights
// float32 [num_out, num_terms, 2] are complex. sample = slice, element = group of voxels of a row.

// `width` neighbours of a row; `plane` leads from real to imaginary parts. Of real rows there are none.
template <int width, bool from_waves, bool to_waves>
INLINE void sum_of_rows(const int* __restrict__ from, const float* __restrict__ weight, int num_terms,
                        const float* __restrict__ in, i64 num_across, i64 plane, int lanes,
                        float* __restrict__ real, float* __restrict__ imaginary) {
    LANES_LOOP for (int j = 0; j < width; ++j) {
        real[j] = 0.0f;
        imaginary[j] = 0.0f;
    }
    for (int k = 0; k < num_terms; ++k) {
        const float* x = in + from[k] * num_across;
        const float* y = x + (from_waves ? plane : 0);
        const float cosine = weight[2 * k];
        const float sine = weight[2 * k + 1];
        LANES_LOOP for (int j = 0; j < width; ++j)
            if (j < lanes)
                real[j] = real[j] + (from_waves ? cosine * x[j] - sine * y[j] : cosine * x[j]);
        LANES_LOOP for (int j = 0; j < width; ++j)
            if (to_waves && j < lanes)
                imaginary[j] =
                    imaginary[j] + (from_waves ? cosine * y[j] + sine * x[j] : sine * x[j]);
    }
}

template <bool from_waves, bool to_waves>
INLINE void row_group(i64 sample, i64 element, i64 num_samples, i64 num_in, i64 num_out,
                      int num_terms, i64 num_across, const int* __restrict__ from,
                      const float* __restrict__ weights, const float* __restrict__ in,
                      float* __restrict__ out) {
    const i64 groups = (num_across + GROUP - 1) / GROUP;
    const i64 row = element / groups;
    const i64 first = GROUP * (element - row * groups);
    const int lanes = lanes_of_group(first, num_across);
    const i64 plane = num_samples * num_in * num_across;
    const int* source = from + row * num_terms;
    const float* weight = weights + 2 * row * num_terms;
    const float* group = in + sample * num_in * num_across + first;
    float* real = out + (sample * num_out + row) * num_across + first;
    float* imaginary = real + num_samples * num_out * num_across;
    float sums[2][GROUP];
    if (lanes == GROUP)
        sum_of_rows<GROUP, from_waves, to_waves>(source, weight, num_terms, group, num_across,
                                                 plane, GROUP, sums[0], sums[1]);
    else
        sum_of_rows<GROUP, from_waves, to_waves>(source, weight, num_terms, group, num_across,
                                                 plane, lanes, sums[0], sums[1]);
    LANES_LOOP for (int j = 0; j < GROUP; ++j)
        if (j < lanes) real[j] = sums[0][j];
    LANES_LOOP for (int j = 0; j < GROUP; ++j)
        if (to_waves && j < lanes) imaginary[j] = sums[1][j];
}

#define ROW_KERNEL(name, from_waves, to_waves)                                                  \
    FOR_EACH(name,                                                                              \
             (i64 num_samples, i64 num_elements, int num_in, int num_out, int num_terms,        \
              i64 num_across, const int* __restrict__ from, const float* __restrict__ weights,  \
              const float* __restrict__ in, float* __restrict__ out),                           \
             {                                                                                  \
                 (row_group<from_waves, to_waves>(sample, element, num_samples, num_in,         \
                                                  num_out, num_terms, num_across, from,         \
                                                  weights, in, out));                           \
             })

ROW_KERNEL(rows_to_rows, false, false)
ROW_KERNEL(rows_to_waves, false, true)
ROW_KERNEL(waves_to_waves, true, true)
ROW_KERNEL(waves_to_rows, true, false)

// Slices [num_rows, num_columns] as [num_columns, num_rows]; element = group of a row after it.
FOR_EACH(turn_slices,
         (i64 num_samples, i64 num_elements, i64 num_rows, i64 num_columns,
          const float* __restrict__ in, float* __restrict__ out),
         {
             const i64 groups = (num_rows + GROUP - 1) / GROUP;
             const i64 column = element / groups;
             const i64 first = GROUP * (element - column * groups);
             const int lanes = lanes_of_group(first, num_rows);
             const float* from = in + (sample * num_rows + first) * num_columns + column;
             float* to = out + (sample * num_columns + column) * num_rows + first;
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) to[j] = from[j * num_columns];
         })

// Slices of waves times factors float32 [num_factors, num_elements], which slice after slice takes in
// turn; sample = slice, real parts or imaginary ones.
FOR_EACH(multiply_waves,
         (i64 num_samples, i64 num_elements, i64 num_factors, const float* __restrict__ factors,
          float* __restrict__ waves),
         {
             const i64 wave = sample * num_elements + element;
             const float factor = factors[(sample % num_factors) * num_elements + element];
             waves[wave] = waves[wave] * factor;
         })

#ifndef __CUDACC__

#include "fourier_host.cuh"

#endif
