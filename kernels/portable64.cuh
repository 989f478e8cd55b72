// The float64 arithmetic of streamtrain/numerics/portable.py, to the last bit, and the random numbers
// of streamtrain/numerics/rng.py. The terms of the series are printed by the former (`source`).

#pragma once

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define APART static __device__ __noinline__  // what is called often, and compiled once
INLINE double magnitude(double x) { return fabs(x); }
INLINE double double_of(i64 b) { return __longlong_as_double(b); }
#else
#define UNROLL _Pragma("GCC unroll 32")
#define APART static __attribute__((noinline))
INLINE double magnitude(double x) { return __builtin_fabs(x); }
INLINE double double_of(i64 b) { double x; __builtin_memcpy(&x, &b, 8); return x; }
#endif

#define ROUNDS_TO_WHOLE 6755399441055744.0  // 1.5 * 2^52: added to a number it leaves the nearest
                                            // whole number in the lowest bits

template <int N>
INLINE double series_of(const double (&terms)[N], double x) {
    double total = terms[N - 1];
    UNROLL
    for (int k = N - 2; k >= 0; --k) total = total * x + terms[k];
    return total;
}

// 0 and below give -1022, infinity 1024, NaN itself.
INLINE double log2_of(double x) {
    const double terms[] = {LOG2_TERMS};
    double value = x > 2.2250738585072014e-308 ? x : 2.2250738585072014e-308;
    value = value < 1.7976931348623157e308 ? value : 1.7976931348623157e308;
    const i64 bits = bits_of(value);
    // the biased exponent, exactly as a double: it is put into the mantissa of 2^52
    double exponent = double_of((bits >> 52) | 0x4330000000000000ll) - (4503599627370496.0 + 1022.0);
    double mantissa = double_of((bits & 0x000fffffffffffffll) | 0x3fe0000000000000ll);
    const int low = mantissa < 0.7071067811865476;
    mantissa = low ? 2.0 * mantissa : mantissa;
    exponent = low ? exponent - 1.0 : exponent;
    const double s = (mantissa - 1.0) / (mantissa + 1.0);
    const double result = exponent + s * series_of(terms, s * s) * (2.0 / LN2);
    return x != x ? x : result;
}

// x is clamped to [-1022, 1023]; NaN gives itself.
INLINE double exp2_of(double x) {
    const double terms[] = {EXP2_TERMS};
    double clamped = x > -1022.0 ? x : -1022.0;
    clamped = clamped < 1023.0 ? clamped : 1023.0;
    const double shifted = clamped + ROUNDS_TO_WHOLE;
    const i64 whole = bits_of(shifted) - bits_of(ROUNDS_TO_WHOLE);
    const double rest = clamped - (shifted - ROUNDS_TO_WHOLE);
    const double result = series_of(terms, rest) * double_of((i64)((u64)(whole + 1023) << 52));
    return x != x ? x : result;
}

APART void sincos_turns(double turns, double* sine, double* cosine) {
    const double sin_terms[] = {SIN_TERMS}, cos_terms[] = {COS_TERMS};
    const double quarters = 4.0 * turns, shifted = quarters + ROUNDS_TO_WHOLE;
    const i64 quadrant = (bits_of(shifted) - bits_of(ROUNDS_TO_WHOLE)) & 3;
    const double angle = (quarters - (shifted - ROUNDS_TO_WHOLE)) * HALF_PI;
    const double square = angle * angle;
    const double s = angle * series_of(sin_terms, square), c = series_of(cos_terms, square);
    const double odd = (quadrant & 1) ? c : s, even = (quadrant & 1) ? s : c;
    *sine = (quadrant & 2) ? -odd : odd;
    *cosine = ((quadrant + 1) & 2) ? -even : even;
}

INLINE void sincos_deg(double angle, double* sine, double* cosine) {
    sincos_turns(angle / 360.0, sine, cosine);
}

APART double arctan_of(double x) {
    const double terms[] = {ARCTAN_TERMS};
    const double size = magnitude(x);
    const int large = size > 1.0;
    double t = large ? 1.0 / size : size;
    t = t / (1.0 + square_root(1.0 + t * t));  // half the angle
    t = t / (1.0 + square_root(1.0 + t * t));
    const double angle = 4.0 * t * series_of(terms, t * t);
    const double result = large ? HALF_PI - angle : angle;
    return x < 0.0 ? -result : result;
}

// What the random numbers of a sample have in common.
struct Sample {
    u32 key_lo, key_hi;      // the seed
    u32 index_lo, index_hi;
    u32 split;               // in the upper half, as rng.stage_word
};

INLINE double unit_double(u32 high, u32 low) {
    return ((double)(i64)(((u64)high << 20) | (low >> 12)) + 0.5) * 2.220446049250313e-16;
}

INLINE Words words_of(const Sample* of, u32 stage, u32 element) {
    return philox(element, of->split | stage, of->index_lo, of->index_hi, of->key_lo, of->key_hi);
}

APART double uniform_of(const Sample* of, u32 stage, u32 element) {
    const Words words = words_of(of, stage, element);
    return unit_double(words.a, words.b);
}

APART double normal_of(const Sample* of, u32 stage, u32 element) {
    const Words words = words_of(of, stage, element);
    double sine, cosine;
    sincos_turns(unit_double(words.c, words.d), &sine, &cosine);
    return square_root(-2.0 * (log2_of(unit_double(words.a, words.b)) * LN2)) * cosine;
}
