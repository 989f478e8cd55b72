// Principal components along frequency. Part of observe.cu, which says what the arrays are. All is
// float64, with sums in a fixed order.
//
// One cube's eigenvectors are worked out by a block of threads together (GPU) or by one after the
// other (CPU): TOGETHER shares the turns of a loop, which write different numbers, and TEAM_WAITS
// stands where what others have written is read. What stands outside of these loops every thread
// computes for itself, from the same numbers.

#ifdef __CUDACC__
#define FOR_EACH_CUBE(name, arguments, body)                                       \
    extern "C" __global__ void name arguments {                                    \
        const i64 sample = blockIdx.x;                                             \
        if (blockIdx.y == 0 && sample < num_samples) body                          \
    }
#define TOGETHER(k, num) for (int k = threadIdx.x; k < (num); k += blockDim.x)
#define TEAM_WAITS __syncthreads()
#else
#define FOR_EACH_CUBE(name, arguments, body)                                       \
    extern "C" void name arguments {                                               \
        for (i64 sample = 0; sample < num_samples; ++sample) body                  \
    }
#define TOGETHER(k, num) for (int k = 0; k < (num); ++k)
#define TEAM_WAITS
#endif

#define PIXELS_OF_CHUNK 256  // pixels whose products are added before those of other chunks
#define PRODUCT_LANES 32     // sums that run side by side in a chunk
#define BISECTIONS 58        // of an interval of 5/4: to 4e-18 of the sum of all eigenvalues
#define INVERSE_ITERATIONS 4
#define LEAST_PIVOT 1e-17    // of eigenvalues whose sum is 1
#define LEAST_SQUARE 1e-60   // of what is reflected away, likewise: less is nothing

INLINE double size_of(double x) { return x < 0.0 ? -x : x; }

// A cube in units of its noise: weighted = cube / sigma, sigma float32 [n_freq, num_elements]; 0 in
// voxels that were not observed, where sigma is negative. sample = (cube, frequency).
FOR_EACH(in_units_of_noise,
         (i64 num_samples, i64 num_elements, int num_freq, const float* __restrict__ sigma,
          const float* __restrict__ cube, double* __restrict__ weighted),
         {
             const i64 voxel = sample * num_elements + element;
             const float level = sigma[(sample % num_freq) * num_elements + element];
             weighted[voxel] = level > 0.0f ? (double)cube[voxel] / (double)level : 0.0;
         })

INLINE double product_sum(const double* __restrict__ a, const double* __restrict__ b, int num) {
    double sum[PRODUCT_LANES];
    for (int j = 0; j < PRODUCT_LANES; ++j) sum[j] = 0.0;
    int k = 0;
    for (; k + PRODUCT_LANES <= num; k += PRODUCT_LANES)
        for (int j = 0; j < PRODUCT_LANES; ++j) sum[j] = sum[j] + a[k + j] * b[k + j];
    for (int j = 0; k + j < num; ++j) sum[j] = sum[j] + a[k + j] * b[k + j];
    for (int width = PRODUCT_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; ++j) sum[j] = sum[j] + sum[j + width];
    return sum[0];
}

#ifdef __CUDACC__

// Products of channels, summed over a chunk of pixels: products [B, num_chunks, n_freq, n_freq].
// sample = (cube, chunk), element = a pair of channels.
FOR_EACH(channel_products,
         (i64 num_samples, i64 num_elements, int num_pixels, int num_chunks, int num_freq,
          const double* __restrict__ weighted, double* __restrict__ products),
         {
             const int row = (int)element / num_freq;
             const int column = (int)element % num_freq;
             if (column <= row) {
                 const int begin = (int)(sample % num_chunks) * PIXELS_OF_CHUNK;
                 const int left = num_pixels - begin;
                 const double* in = weighted + sample / num_chunks * num_freq * num_pixels + begin;
                 const double sum =
                     product_sum(in + (i64)row * num_pixels, in + (i64)column * num_pixels,
                                 left < PIXELS_OF_CHUNK ? left : PIXELS_OF_CHUNK);
                 double* out = products + sample * num_elements;
                 out[row * num_freq + column] = sum;
                 out[column * num_freq + row] = sum;
             }
         })

#endif

// matrix [n, n] = the sum of those of all chunks, over its trace, so that its eigenvalues are 0 to 1.
INLINE void joined_products(int n, int num_chunks, const double* products, double* matrix) {
    TOGETHER(k, n * n) matrix[k] = 0.0;
    for (int chunk = 0; chunk < num_chunks; ++chunk)
        TOGETHER(k, n * n) matrix[k] = matrix[k] + products[(i64)chunk * n * n + k];
    TEAM_WAITS;
    double trace = 0.0;
    for (int i = 0; i < n; ++i) trace = trace + matrix[i * n + i];
    TEAM_WAITS;
    if (trace > 0.0) TOGETHER(k, n * n) matrix[k] = matrix[k] / trace;
    TEAM_WAITS;
}

// Householder's reduction of a symmetric matrix to the numbers on its diagonal and those beside it.
// Row k of reflectors is the vector that column k was reflected with, from its row k + 1 on, and
// factor[k] = 2 / its square, 0 where nothing was left to do. image: room for n numbers.
INLINE void tridiagonalise(int n, double* matrix, double* reflectors, double* factor,
                           double* diagonal, double* beside, double* image) {
    for (int k = 0; k < n - 1; ++k) {
        const int m = n - 1 - k;
        const double* row = matrix + k * n + k + 1;
        double* below = matrix + (k + 1) * n + k + 1;
        double* vector = reflectors + k * n;
        const double first = row[0];
        double rest = 0.0;
        for (int i = 1; i < m; ++i) rest = rest + row[i] * row[i];
        const double norm = square_root(first * first + rest);
        const double head = first > 0.0 ? first + norm : first - norm;
        const double scale = rest > LEAST_SQUARE ? 2.0 / (head * head + rest) : 0.0;
        TOGETHER(i, m) {
            vector[i] = i == 0 ? head : row[i];
            image[i] = 0.0;
            if (i == 0) {
                factor[k] = scale;
                diagonal[k] = matrix[k * n + k];
                beside[k] = scale == 0.0 ? first : first > 0.0 ? -norm : norm;
            }
        }
        TEAM_WAITS;
        if (scale == 0.0) continue;
        for (int i = 0; i < m; ++i)
            TOGETHER(j, m) image[j] = image[j] + vector[i] * below[i * n + j];
        TEAM_WAITS;
        double along = 0.0;
        for (int i = 0; i < m; ++i) along = along + vector[i] * image[i];
        const double half = 0.5 * scale * (scale * along);
        TEAM_WAITS;
        TOGETHER(i, m) image[i] = scale * image[i] - half * vector[i];
        TEAM_WAITS;
        for (int i = 0; i < m; ++i)
            TOGETHER(j, m)
                below[i * n + j] =
                    below[i * n + j] - (vector[i] * image[j] + image[i] * vector[j]);
        TEAM_WAITS;
    }
    TOGETHER(i, 1) diagonal[n - 1] = matrix[n * n - 1];
    TEAM_WAITS;
}

// How many eigenvalues of a tridiagonal matrix are above x (Sturm's sequence).
INLINE int number_above(int n, const double* diagonal, const double* beside, double x) {
    int number = 0;
    double pivot = 1.0;
    double coupling = 0.0;
    for (int i = 0; i < n; ++i) {
        pivot = diagonal[i] - x - coupling / pivot;
        if (size_of(pivot) < 1e-300) pivot = -1e-300;
        number += pivot > 0.0;
        coupling = i + 1 < n ? beside[i] * beside[i] : 0.0;
    }
    return number;
}

// The eigenvalue number `rank` (0: the largest) of a tridiagonal matrix, all being 0 to 1.
INLINE double eigenvalue(int n, const double* diagonal, const double* beside, int rank) {
    double low = -0.125;
    double high = 1.125;
    for (int k = 0; k < BISECTIONS; ++k) {
        const double middle = 0.5 * (low + high);
        const int above = number_above(n, diagonal, beside, middle) > rank;
        low = above ? middle : low;
        high = above ? high : middle;
    }
    return 0.5 * (low + high);
}

INLINE double as_pivot(double x) { return size_of(x) < LEAST_PIVOT ? LEAST_PIVOT : x; }

// vector becomes the solution x of (tridiagonal matrix - value) x = vector, by elimination with
// exchange of rows, over its largest number. upper: room for the three diagonals, [3, n].
INLINE void solve_shifted(int n, const double* diagonal, const double* beside, double value,
                          double* upper, double* vector) {
    double pivot = diagonal[0] - value;
    double next = n > 1 ? beside[0] : 0.0;
    double right = vector[0];
    for (int i = 0; i + 1 < n; ++i) {
        const double below = beside[i];
        const double middle = diagonal[i + 1] - value;
        const double far = i + 2 < n ? beside[i + 1] : 0.0;
        const double given = vector[i + 1];
        if (size_of(below) > size_of(pivot)) {
            const double ratio = pivot / below;
            upper[i] = below;
            upper[n + i] = middle;
            upper[2 * n + i] = far;
            vector[i] = given;
            pivot = next - ratio * middle;
            next = -(ratio * far);
            right = right - ratio * given;
        } else {
            pivot = as_pivot(pivot);
            const double ratio = below / pivot;
            upper[i] = pivot;
            upper[n + i] = next;
            upper[2 * n + i] = 0.0;
            vector[i] = right;
            pivot = middle - ratio * next;
            next = far;
            right = given - ratio * right;
        }
    }
    upper[n - 1] = as_pivot(pivot);
    vector[n - 1] = right;
    double one = 0.0;
    double two = 0.0;
    double largest = 0.0;
    for (int i = n - 1; i >= 0; --i) {
        const double known = i + 1 < n ? upper[n + i] * one + upper[2 * n + i] * two : 0.0;
        two = one;
        one = (vector[i] - known) / upper[i];
        vector[i] = one;
        largest = size_of(one) > largest ? size_of(one) : largest;
    }
    const double inverse = largest > 0.0 ? 1.0 / largest : 0.0;
    for (int i = 0; i < n; ++i) vector[i] = vector[i] * inverse;
}

// Vectors [num, n] made orthonormal, each against all before it, twice (Gram and Schmidt).
INLINE void orthonormalise(int n, int num, double* vectors) {
    for (int r = 0; r < num; ++r) {
        double* vector = vectors + r * n;
        for (int s = 0; s < 2 * r; ++s) {
            const double* earlier = vectors + (s < r ? s : s - r) * n;
            double along = 0.0;
            for (int i = 0; i < n; ++i) along = along + earlier[i] * vector[i];
            TEAM_WAITS;
            TOGETHER(i, n) vector[i] = vector[i] - along * earlier[i];
            TEAM_WAITS;
        }
        double square = 0.0;
        for (int i = 0; i < n; ++i) square = square + vector[i] * vector[i];
        const double norm = square_root(square);
        TEAM_WAITS;
        TOGETHER(i, n) vector[i] = norm > 0.0 ? vector[i] / norm : 0.0;
        TEAM_WAITS;
    }
}

// The eigenvectors of the `num` largest eigenvalues of a tridiagonal matrix, by inverse iteration
// from random vectors. values: room for num numbers; upper: for [num, 3, n].
INLINE void tridiagonal_modes(int n, int num, const double* diagonal, const double* beside,
                              double* values, double* upper, double* modes) {
    TOGETHER(r, num) {
        values[r] = eigenvalue(n, diagonal, beside, r);
        for (int i = 0; i < n; ++i)
            modes[r * n + i] = (double)unit_interval(philox(i, r, 0, 0, 0, 0).a) - 0.5;
    }
    for (int k = 0; k < INVERSE_ITERATIONS; ++k) {
        TOGETHER(r, num)
            solve_shifted(n, diagonal, beside, values[r], upper + r * 3 * n, modes + r * n);
        TEAM_WAITS;
        orthonormalise(n, num, modes);
    }
}

// The eigenvectors of the matrix before it was made tridiagonal.
INLINE void reflect_back(int n, int num, const double* reflectors, const double* factor,
                         double* modes) {
    TOGETHER(r, num)
        for (int k = n - 2; k >= 0; --k) {
            const double* vector = reflectors + k * n;
            double* mode = modes + r * n + k + 1;
            double along = 0.0;
            for (int i = 0; i < n - 1 - k; ++i) along = along + vector[i] * mode[i];
            for (int i = 0; i < n - 1 - k; ++i)
                mode[i] = mode[i] - factor[k] * along * vector[i];
        }
}

// The leading modes of each cube, [B, num_modes, n_freq]: the eigenvectors of the largest
// eigenvalues of its products of channels. room: [B, room_of_cube], see room_for_modes in pca.py.
FOR_EACH_CUBE(leading_modes,
              (i64 num_samples, int num_freq, int num_chunks, int num_modes, i64 room_of_cube,
               const double* products, double* room, double* modes),
              {
                  const int n = num_freq;
                  double* matrix = room + sample * room_of_cube;
                  double* reflectors = matrix + n * n;
                  double* factor = reflectors + n * n;
                  double* diagonal = factor + n;
                  double* beside = diagonal + n;
                  double* image = beside + n;
                  double* values = image + n;
                  double* upper = values + num_modes;
                  double* out = modes + sample * num_modes * n;
                  joined_products(n, num_chunks, products + sample * num_chunks * n * n, matrix);
                  tridiagonalise(n, matrix, reflectors, factor, diagonal, beside, image);
                  tridiagonal_modes(n, num_modes, diagonal, beside, values, upper, out);
                  reflect_back(n, num_modes, reflectors, factor, out);
              })

// A voxel without what its modes make of it over sigma, where it was observed; never subnormal.
INLINE float without_modes(float voxel, float sigma, double sum) {
    const float left = (float)((double)voxel - (double)sigma * sum);
    const float value = magnitude(left) < 1.17549435e-38f ? 0.0f : left;
    return sigma > 0.0f ? value : voxel;
}

#ifdef __CUDACC__

// How much of each of its modes is in a cube: amplitudes [B, num_modes, num_pixels].
// sample = (cube, mode), element = group of pixels.
FOR_EACH(principal_amplitudes,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_modes, int num_freq,
          const double* __restrict__ modes, const double* __restrict__ weighted,
          double* __restrict__ amplitudes),
         {
             const i64 first = GROUP * element;
             const int lanes = lanes_of_group(first, num_pixels);
             const double* in = weighted + (sample / num_modes) * num_freq * num_pixels + first;
             double* out = amplitudes + sample * num_pixels + first;
             double sum[GROUP];
             WEIGHTED_SUMS(modes + sample * num_freq, 1, in, num_pixels, num_freq, lanes, sum)
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) out[j] = sum[j];
         })

// The cube without its modes, where it was observed.
// sample = (cube, frequency), element = group of pixels.
FOR_EACH(subtract_principal,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_modes, int num_freq,
          const float* __restrict__ sigma, const double* __restrict__ modes,
          const double* __restrict__ amplitudes, float* __restrict__ cube),
         {
             const i64 first = GROUP * element;
             const int lanes = lanes_of_group(first, num_pixels);
             const i64 number = sample / num_freq;
             const double* mode = modes + number * num_modes * num_freq + sample % num_freq;
             const double* in = amplitudes + number * num_modes * num_pixels + first;
             const float* level = sigma + (sample % num_freq) * num_pixels + first;
             float* out = cube + sample * num_pixels + first;
             double sum[GROUP];
             WEIGHTED_SUMS(mode, num_freq, in, num_pixels, num_modes, lanes, sum)
             for (int j = 0; j < GROUP; ++j)
                 if (j < lanes) out[j] = without_modes(out[j], level[j], sum[j]);
         })

#else

#include "pca_host.cuh"

#endif
