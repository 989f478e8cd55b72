// Arithmetic that gives the same bits on every NVIDIA GPU and every CPU.
//
// Only IEEE-754 + - * / and sqrt are used, each rounded to nearest, never contracted to a fused
// multiply-add: the build flags -ffp-contract=off (host) and --fmad=false (NVRTC) are part of the
// result. The logarithm, exponential and cosine are polynomials evaluated by Horner's rule;
// their coefficients are weighted minimax fits (Lawson's iteration), rounded to float32.
// Every function is defined for every input, NaN included, and no result is subnormal.

#pragma once

#if defined(__FAST_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "streamtrain kernels must not be compiled with -ffast-math: samples would differ"
#endif
#if !defined(__CUDACC__) && defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "streamtrain kernels need float32 evaluated in float32 (no x87): use -mfpmath=sse"
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef __CUDACC__
#define INLINE static __device__ __forceinline__
INLINE u32 bits_of(float x) { return __float_as_uint(x); }
INLINE float float_of(u32 b) { return __uint_as_float(b); }
INLINE i64 bits_of(double x) { return __double_as_longlong(x); }
INLINE float square_root(float x) { return __fsqrt_rn(x); }
INLINE double square_root(double x) { return __dsqrt_rn(x); }
INLINE float magnitude(float x) { return fabsf(x); }
#else
#define INLINE static inline __attribute__((always_inline))
INLINE u32 bits_of(float x) { u32 b; __builtin_memcpy(&b, &x, 4); return b; }
INLINE float float_of(u32 b) { float x; __builtin_memcpy(&x, &b, 4); return x; }
INLINE i64 bits_of(double x) { i64 b; __builtin_memcpy(&b, &x, 8); return b; }
INLINE float square_root(float x) { return __builtin_sqrtf(x); }
INLINE double square_root(double x) { return __builtin_sqrt(x); }
INLINE float magnitude(float x) { return __builtin_fabsf(x); }
#endif

// log2(x), 2.3 ulp; x below 2^-126, zero, negative or NaN gives -126.
INLINE float portable_log2(float x) {
    x = x > 1.17549435e-38f ? x : 1.17549435e-38f;
    const int biased = (int)(bits_of(x) - 0x3f3504f3u);  // 0x3f3504f3 = sqrt(1/2)
    const int exponent = biased >> 23;
    const float f = float_of(bits_of(x) - ((u32)exponent << 23)) - 1.0f;
    float p = 0.12583696842193604f;
    p = p * f + -0.2072697877883911f;
    p = p * f + 0.21571564674377441f;
    p = p * f + -0.23894481360912323f;
    p = p * f + 0.28791624307632446f;
    p = p * f + -0.3607036769390106f;
    p = p * f + 0.48091062903404236f;
    p = p * f + -0.7213473320007324f;
    p = p * f + 1.4426950216293335f;
    return (float)exponent + f * p;
}

// 2^x, 1.1 ulp; x is clamped to [-126, 127], NaN gives 2^-126.
INLINE float portable_exp2(float x) {
    x = x > -126.0f ? x : -126.0f;
    x = x < 127.0f ? x : 127.0f;
    const float whole = (x + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to nearest
    const float f = x - whole;
    float p = 1.5196156709862407e-05f;
    p = p * f + 0.00015466756303794682f;
    p = p * f + 0.0013333935057744384f;
    p = p * f + 0.009618038311600685f;
    p = p * f + 0.055504102259874344f;
    p = p * f + 0.24022650718688965f;
    p = p * f + 0.6931471824645996f;
    p = p * f + 1.0f;
    return float_of(bits_of(p) + ((u32)(int)whole << 23));
}

// Uniform in (0, 1) from the upper 23 bits of a random word; never 0 or 1.
INLINE float unit_interval(u32 word) {
    return ((float)(int)(word >> 9) + 0.5f) * 1.1920928955078125e-07f;
}

// sin and cos of pi/2 (quadrant + r), r in [-1/2, 1/2].
INLINE void quarter_turns(float turns4, float* sine, float* cosine) {
    const float whole = (turns4 + 12582912.0f) - 12582912.0f;
    const float r = turns4 - whole;
    const u32 quadrant = (u32)(int)whole;
    const float s2 = r * r;
    float s = 0.00015820664702914655f;
    s = s * s2 + -0.004681266378611326f;
    s = s * s2 + 0.07969257980585098f;
    s = s * s2 + -0.6459640860557556f;
    s = s * s2 + 1.5707963705062866f;
    s = s * r;
    float c = 0.0009040210279636085f;
    c = c * s2 + -0.02086028829216957f;
    c = c * s2 + 0.25366923213005066f;
    c = c * s2 + -1.2337005138397217f;
    c = c * s2 + 1.0f;
    const float even = (quadrant & 1u) ? s : c;
    const float odd = (quadrant & 1u) ? c : s;
    *cosine = float_of(bits_of(even) ^ (((quadrant + 1u) & 2u) << 30));
    *sine = float_of(bits_of(odd) ^ ((quadrant & 2u) << 30));
}

// Two independent standard normals from two random words (Box and Muller 1958).
INLINE void normal_pair(u32 first, u32 second, float* a, float* b) {
    const float radius = square_root(-1.3862943649291992f * portable_log2(unit_interval(first)));
    float sine, cosine;
    quarter_turns(4.0f * unit_interval(second), &sine, &cosine);
    *a = radius * cosine;
    *b = radius * sine;
}
