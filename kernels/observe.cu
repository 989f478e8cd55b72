// What happens to a cube after it is painted: the functions of the map operators. Those of pool and
// mask are here, the others in the files at the end, which are named as in streamtrain/operators.
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

// Sum of a block of voxels times `weight` (1, or 1 / number for the mean), in a fixed order.
// num_elements = pooled voxels; the pooled cube is [num_freq, num_dec, num_ra].
#ifdef __CUDACC__

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

#else

// The host goes along rows, whose sums run side by side.
extern "C" void pool(i64 num_samples, i64 num_elements, int num_dec, int num_ra, int by_freq,
                     int by_dec, int by_ra, float weight, const float* __restrict__ fine,
                     float* __restrict__ pooled) {
    enum { PART = 64 };
    const i64 wide = (i64)num_ra * by_ra;
    const i64 tall = (i64)num_dec * by_dec;
    const i64 num_rows = num_ra > 0 ? num_samples * num_elements / num_ra : 0;
    for (i64 row = 0; row < num_rows; ++row) {
        const i64 freq = row / num_dec;  // of all samples, behind one another
        const float* in = fine + (freq * by_freq * tall + row % num_dec * by_dec) * wide;
        for (int first = 0; first < num_ra; first += PART) {
            const int num = num_ra - first < PART ? num_ra - first : PART;
            double sum[PART];
            for (int ra = 0; ra < num; ++ra) sum[ra] = 0.0;
            for (int i = 0; i < by_freq; ++i)
                for (int j = 0; j < by_dec; ++j) {
                    const float* of_row = in + (i * tall + j) * wide + (i64)first * by_ra;
                    if (by_ra == 1)
                        for (int ra = 0; ra < num; ++ra) sum[ra] += (double)of_row[ra];
                    else
                        for (int ra = 0; ra < num; ++ra)
                            for (int k = 0; k < by_ra; ++k)
                                sum[ra] += (double)of_row[ra * by_ra + k];
                }
            float* out = pooled + row * num_ra + first;
            for (int ra = 0; ra < num; ++ra) out[ra] = (float)sum[ra] * weight;
        }
    }
}

#endif

// Pixels that are not kept become zero: keep int32 [num_elements] of a slice, sample = slice.
FOR_EACH(mask_pixels,
         (i64 num_samples, i64 num_elements, const int* __restrict__ keep,
          float* __restrict__ cube),
         {
             const i64 voxel = sample * num_elements + element;
             cube[voxel] = keep[element] ? cube[voxel] : 0.0f;
         })

// A group of neighbouring voxels that one element works on: their sums are independent, so that a
// compiler makes vectors of them. The last group of a slice may have fewer lanes.
#define GROUP 8

// In front of a loop over lanes: gcc makes vectors of it only as long as it is a loop.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define LANES_LOOP _Pragma("GCC unroll 1")
#else
#define LANES_LOOP
#endif

INLINE int lanes_of_group(i64 first, i64 num) {
    return num - first < GROUP ? (int)(num - first) : GROUP;
}

// sum[j] = the sum over k of weight[k * weight_step] in[k * step + j], added in the order of k.
template <int width, typename Real, typename Input>
INLINE void weighted_sums(const Real* __restrict__ weight, i64 weight_step,
                          const Input* __restrict__ in, i64 step, int num_terms, int lanes,
                          Real* __restrict__ sum) {
    LANES_LOOP for (int j = 0; j < width; ++j) sum[j] = 0;
    for (int k = 0; k < num_terms; ++k) {
        LANES_LOOP for (int j = 0; j < width; ++j)
            if (j < lanes)
                sum[j] = sum[j] + weight[k * weight_step] * (Real)in[k * step + j];
    }
}

// The condition on the lanes is gone where they are a constant.
#define SUMS_OF_LANES(width, weight, weight_step, in, step, num_terms, lanes, sum) \
    if (lanes == width)                                                            \
        weighted_sums<width>(weight, weight_step, in, step, num_terms, width, sum); \
    else                                                                           \
        weighted_sums<width>(weight, weight_step, in, step, num_terms, lanes, sum);
#define WEIGHTED_SUMS(weight, weight_step, in, step, num_terms, lanes, sum)        \
    SUMS_OF_LANES(GROUP, weight, weight_step, in, step, num_terms, lanes, sum)

#include "noise.cuh"
#include "sources.cuh"
#include "beam.cuh"
#include "fourier.cuh"
#include "filters.cuh"
#include "transforms.cuh"
#include "pca.cuh"
