// Just enough of CUDA C++ to run the GPU branch of kernels/*.cu on a CPU, one thread at a time.
// Kernels with a barrier are run with one thread per block, where a barrier does nothing.
#define __CUDACC__ 1
#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __syncthreads()

struct Index {
    unsigned int x, y, z;
};
static Index blockIdx, threadIdx, blockDim, gridDim;

static inline unsigned int __float_as_uint(float x) {
    unsigned int b;
    __builtin_memcpy(&b, &x, 4);
    return b;
}
static inline float __uint_as_float(unsigned int b) {
    float x;
    __builtin_memcpy(&x, &b, 4);
    return x;
}
static inline long long __double_as_longlong(double x) {
    long long b;
    __builtin_memcpy(&b, &x, 8);
    return b;
}
static inline double __longlong_as_double(long long b) {
    double x;
    __builtin_memcpy(&x, &b, 8);
    return x;
}
static inline double fabs(double x) { return __builtin_fabs(x); }
static inline float fabsf(float x) { return __builtin_fabsf(x); }
static inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
static inline double __dsqrt_rn(double x) { return __builtin_sqrt(x); }
template <typename T>
static inline T atomicAdd(T* address, T value) {
    const T old = *address;
    *address = old + value;
    return old;
}

extern "C" void set_thread(unsigned int block_x, unsigned int block_y, unsigned int thread,
                           unsigned int blocks, unsigned int rows, unsigned int threads) {
    blockIdx = {block_x, block_y, 0};
    threadIdx = {thread, 0, 0};
    blockDim = {threads, 1, 1};
    gridDim = {blocks, rows, 1};
}

unsigned int histogram[4096];  // the dynamic shared memory of one block, by any of its names
double room[4096];
