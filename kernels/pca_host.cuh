// The host's side of pca.cuh: the same sums, each in the same order, of which as many run side by
// side as a processor has registers for.

#pragma once

typedef double Eight __attribute__((vector_size(64)));

// Pairs of channels whose products are added at the same time, one Eight for each: with fewer
// registers fewer of them, or they would lie in memory.
#ifdef __AVX512F__
enum { TILE_ROWS = 4, TILE_COLUMNS = 4 };
#else
enum { TILE_ROWS = 4, TILE_COLUMNS = 2 };
#endif
enum { PAIRS = TILE_ROWS * TILE_COLUMNS };
#define ALL_PAIRS _Pragma("GCC unroll 16")

// sums[p] = product_sum of row p / TILE_COLUMNS of `a` and row p % TILE_COLUMNS of `b`, whose rows
// are num_pixels apart.
INLINE void tile_sums(const double* a, const double* b, i64 num_pixels, int num, double* sums) {
    double lanes[PAIRS][PRODUCT_LANES];
    for (int first = 0; first < PRODUCT_LANES; first += 8) {
        Eight part[PAIRS];
        ALL_PAIRS for (int p = 0; p < PAIRS; ++p) part[p] = Eight{};
        int k = first;
        for (; k + 8 <= num; k += PRODUCT_LANES) {
            ALL_PAIRS for (int r = 0; r < TILE_ROWS; ++r) {
                Eight x;
                __builtin_memcpy(&x, a + r * num_pixels + k, sizeof x);
                ALL_PAIRS for (int c = 0; c < TILE_COLUMNS; ++c) {
                    Eight y;
                    __builtin_memcpy(&y, b + c * num_pixels + k, sizeof y);
                    part[r * TILE_COLUMNS + c] = part[r * TILE_COLUMNS + c] + x * y;
                }
            }
        }
        ALL_PAIRS for (int p = 0; p < PAIRS; ++p)
            __builtin_memcpy(lanes[p] + first, part + p, sizeof(Eight));
        for (int p = 0; p < PAIRS && k < num; ++p) {
            const double* x = a + p / TILE_COLUMNS * num_pixels + k;
            const double* y = b + p % TILE_COLUMNS * num_pixels + k;
            for (int j = 0; k + j < num; ++j)
                lanes[p][first + j] = lanes[p][first + j] + x[j] * y[j];
        }
    }
    double joined[8][PAIRS];
    for (int p = 0; p < PAIRS; ++p)
        for (int j = 0; j < 8; ++j)
            joined[j][p] = (lanes[p][j] + lanes[p][j + 16]) + (lanes[p][j + 8] + lanes[p][j + 24]);
    for (int width = 4; width > 0; width /= 2)
        for (int j = 0; j < width; ++j)
            for (int p = 0; p < PAIRS; ++p) joined[j][p] = joined[j][p] + joined[j + width][p];
    for (int p = 0; p < PAIRS; ++p) sums[p] = joined[0][p];
}

extern "C" void channel_products(i64 num_samples, i64 num_elements, int num_pixels, int num_chunks,
                                 int num_freq, const double* __restrict__ weighted,
                                 double* __restrict__ products) {
    for (i64 sample = 0; sample < num_samples; ++sample) {
        const int begin = (int)(sample % num_chunks) * PIXELS_OF_CHUNK;
        const int left = num_pixels - begin;
        const int num = left < PIXELS_OF_CHUNK ? left : PIXELS_OF_CHUNK;
        const double* in = weighted + sample / num_chunks * num_freq * num_pixels + begin;
        double* out = products + sample * num_elements;
        for (int row = 0; row < num_freq; row += TILE_ROWS)
            for (int column = 0; column < row + TILE_ROWS; column += TILE_COLUMNS) {
                const double* a = in + (i64)row * num_pixels;
                const double* b = in + (i64)column * num_pixels;
                const bool whole =
                    row + TILE_ROWS <= num_freq && column + TILE_COLUMNS <= num_freq;
                double sums[PAIRS];
                if (whole) tile_sums(a, b, num_pixels, num, sums);
                for (int p = 0; p < PAIRS; ++p) {
                    const int r = p / TILE_COLUMNS, c = p % TILE_COLUMNS;
                    if (row + r >= num_freq || column + c > row + r) continue;
                    const double sum =
                        whole ? sums[p]
                              : product_sum(a + r * (i64)num_pixels, b + c * (i64)num_pixels, num);
                    out[(row + r) * num_freq + column + c] = sum;
                    out[(column + c) * num_freq + row + r] = sum;
                }
            }
    }
}

// Pixels of which a sum each runs side by side: their spectra stay in the cache for all modes.
enum { SIDE_BY_SIDE = 32 };

INLINE int pixels_from(i64 first, i64 num) {
    return num - first < SIDE_BY_SIDE ? (int)(num - first) : SIDE_BY_SIDE;
}

extern "C" void principal_amplitudes(i64 num_samples, i64 num_elements, i64 num_pixels,
                                     int num_modes, int num_freq,
                                     const double* __restrict__ modes,
                                     const double* __restrict__ weighted,
                                     double* __restrict__ amplitudes) {
    (void)num_elements;
    for (i64 cube = 0; cube < num_samples / num_modes; ++cube)
        for (i64 first = 0; first < num_pixels; first += SIDE_BY_SIDE) {
            const int lanes = pixels_from(first, num_pixels);
            const double* in = weighted + cube * num_freq * num_pixels + first;
            for (i64 mode = cube * num_modes; mode < (cube + 1) * num_modes; ++mode) {
                double* out = amplitudes + mode * num_pixels + first;
                double sum[SIDE_BY_SIDE];
                SUMS_OF_LANES(SIDE_BY_SIDE, modes + mode * num_freq, 1, in, num_pixels, num_freq,
                              lanes, sum)
                for (int j = 0; j < lanes; ++j) out[j] = sum[j];
            }
        }
}

extern "C" void subtract_principal(i64 num_samples, i64 num_elements, i64 num_pixels,
                                   int num_modes, int num_freq, const float* __restrict__ sigma,
                                   const double* __restrict__ modes,
                                   const double* __restrict__ amplitudes,
                                   float* __restrict__ cube) {
    (void)num_elements;
    for (i64 sample = 0; sample < num_samples; ++sample) {
        const i64 number = sample / num_freq;
        const double* mode = modes + number * num_modes * num_freq + sample % num_freq;
        for (i64 first = 0; first < num_pixels; first += SIDE_BY_SIDE) {
            const int lanes = pixels_from(first, num_pixels);
            const double* in = amplitudes + number * num_modes * num_pixels + first;
            const float* level = sigma + (sample % num_freq) * num_pixels + first;
            float* out = cube + sample * num_pixels + first;
            double sum[SIDE_BY_SIDE];
            SUMS_OF_LANES(SIDE_BY_SIDE, mode, num_freq, in, num_pixels, num_modes, lanes, sum)
            for (int j = 0; j < lanes; ++j) out[j] = without_modes(out[j], level[j], sum[j]);
        }
    }
}
