// What a machine does at most, for `streamtrain bench --floor`: arithmetic without fused
// multiply-adds, as the other kernels have it, and additions at random addresses.

// A thread of a GPU works on WIDTH = 1 number at a time, one of a CPU on a vector of them.
#ifdef __CUDACC__
typedef float Floats;
typedef double Doubles;
#else
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
typedef float Floats __attribute__((vector_size(VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(VECTOR_BYTES)));
#endif

// Twelve chains of one multiplication and one addition per turn, which do not wait for each other.
// Result: what a turn computes, in numbers, is 24 sizeof(Wide) / sizeof(Real).
#define CHAINS(Wide, Real)                                                                      \
    Wide a0 = {}, a1 = {}, a2 = {}, a3 = {}, a4 = {}, a5 = {};                                  \
    Wide a6 = {}, a7 = {}, a8 = {}, a9 = {}, a10 = {}, a11 = {};                                \
    a1 += (Real)1; a2 += (Real)2; a3 += (Real)3; a4 += (Real)4; a5 += (Real)5; a6 += (Real)6;   \
    a7 += (Real)7; a8 += (Real)8; a9 += (Real)9; a10 += (Real)10; a11 += (Real)11;              \
    for (int turn = 0; turn < turns; ++turn) {                                                  \
        a0 = a0 * factor + term; a1 = a1 * factor + term; a2 = a2 * factor + term;              \
        a3 = a3 * factor + term; a4 = a4 * factor + term; a5 = a5 * factor + term;              \
        a6 = a6 * factor + term; a7 = a7 * factor + term; a8 = a8 * factor + term;              \
        a9 = a9 * factor + term; a10 = a10 * factor + term; a11 = a11 * factor + term;          \
    }                                                                                           \
    const Wide sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;

#ifdef __CUDACC__
#define LANES(Wide, Real) 1
#define FIRST_LANE(sum) (sum)
#else
#define LANES(Wide, Real) ((int)(sizeof(Wide) / sizeof(Real)))
#define FIRST_LANE(sum) ((sum)[0])
#endif

FOR_EACH(rate_float32,
         (i64 num_samples, i64 num_elements, int turns, float factor, float term,
          float* __restrict__ out),
         {
             CHAINS(Floats, float)
             out[sample * num_elements + element] = FIRST_LANE(sum);
         })

FOR_EACH(rate_float64,
         (i64 num_samples, i64 num_elements, int turns, double factor, double term,
          double* __restrict__ out),
         {
             CHAINS(Doubles, double)
             out[sample * num_elements + element] = FIRST_LANE(sum);
         })

// Numbers that a thread computes at a time: out int32 [2], of float32 and of float64.
FOR_EACH(rate_lanes,
         (i64 num_samples, i64 num_elements, int* __restrict__ out),
         {
             (void)sample;
             out[element] = element ? LANES(Doubles, double) : LANES(Floats, float);
         })

// 1 added to one of the num_voxels 64-bit integers of a sample, at an address that looks random
// (the finaliser of MurmurHash3, which passes for random and costs little).
FOR_EACH(rate_deposits,
         (i64 num_samples, i64 num_elements, u32 num_voxels, u64* __restrict__ cube),
         {
             u32 h = (u32)element;
             h ^= h >> 16;
             h *= 0x85ebca6bu;
             h ^= h >> 13;
             h *= 0xc2b2ae35u;
             h ^= h >> 16;
             u64* voxel = cube + sample * num_voxels + (((u64)h * num_voxels) >> 32);
#ifdef __CUDACC__
             atomicAdd(voxel, (u64)1);
#else
             *voxel += 1;
#endif
         })
