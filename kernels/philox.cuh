// Philox4x32-10, the counter-based random number generator of
// Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al. 2011, SC11).
// Four random words are a pure function of a 128-bit counter and a 64-bit key, so a halo or a
// voxel has its numbers whatever thread, order or device computes it.

#pragma once

struct Words {
    u32 a, b, c, d;
};

INLINE Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = (u64)0xD2511F53u * c0;
        const u64 p1 = (u64)0xCD9E8D57u * c2;
        const u32 n0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        const u32 n2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c1 = (u32)p1;
        c3 = (u32)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words w = {c0, c1, c2, c3};
    return w;
}

#ifndef __CUDACC__

// The first `number` of the words [4, n] of n elements from `first` on, with the keys of paint.cu
// (n up to RUN). Compilers make poor vectors of a product of 32 x 32 bits, so on x86 it is written
// out: every number lives in 64 bits, whose upper halves the next product ignores. beside(k) is
// called once for every LANES elements, from element k on: what has other instructions than vectors
// costs little in between.
enum { RUN = 256 };

#ifdef __AVX2__
#ifdef __AVX512F__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef u64 Lanes __attribute__((vector_size(8 * LANES)));
typedef u32 HalfLanes __attribute__((vector_size(4 * LANES)));

// immintrin.h has a name of the instruction for every compiler, and takes as long to read as the
// rest takes to compile; GCC's own name needs no header.
#ifndef __has_builtin
#define __has_builtin(name) 0
#endif
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_pmuludq512_mask)
typedef int Halves __attribute__((vector_size(64)));
typedef long long Products __attribute__((vector_size(64)));
INLINE Lanes low_product(Lanes a, u64 b) {
    const Lanes factor = (a ^ a) + b;
    return (Lanes)__builtin_ia32_pmuludq512_mask(
        (Halves)a, (Halves)factor, (Products)a, (unsigned char)0xFF);
}
#elif !defined(__AVX512F__) && __has_builtin(__builtin_ia32_pmuludq256)
typedef int Halves __attribute__((vector_size(32)));
INLINE Lanes low_product(Lanes a, u64 b) {
    const Lanes factor = (a ^ a) + b;
    return (Lanes)__builtin_ia32_pmuludq256((Halves)a, (Halves)factor);
}
#else
#include <immintrin.h>
INLINE Lanes low_product(Lanes a, u64 b) {
#ifdef __AVX512F__
    return (Lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((i64)b));
#else
    return (Lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((i64)b));
#endif
}
#endif

INLINE void store_low(u32* target, Lanes words) {
    const HalfLanes low = __builtin_convertvector(words, HalfLanes);
    __builtin_memcpy(target, &low, sizeof low);
}

template <typename Beside>
INLINE void philox_run(u32 first, int n, const u32* keys, int number, u32 (*words)[RUN],
                       Beside beside) {
    Lanes steps, zero;
    for (int lane = 0; lane < LANES; ++lane) steps[lane] = (u64)lane, zero[lane] = 0;
    for (int k = 0; k < n; k += LANES) {
        Lanes c0 = steps + (u64)(first + (u32)k);
        Lanes c1 = zero + (u64)keys[4], c2 = zero + (u64)keys[2], c3 = zero + (u64)keys[3];
        u32 k0 = keys[0], k1 = keys[1];
#pragma GCC unroll 10
        for (int round = 0; round < 10; ++round) {
            const Lanes p0 = low_product(c0, 0xD2511F53u);
            const Lanes p1 = low_product(c2, 0xCD9E8D57u);
            c0 = (p1 >> 32) ^ c1 ^ (u64)k0;
            c2 = (p0 >> 32) ^ c3 ^ (u64)k1;
            c1 = p1;
            c3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        store_low(words[0] + k, c0);
        store_low(words[1] + k, c1);
        if (number > 2) store_low(words[2] + k, c2);
        if (number > 3) store_low(words[3] + k, c3);
        beside(k);
    }
}
#else
enum { LANES = 1 };
template <typename Beside>
INLINE void philox_run(u32 first, int n, const u32* keys, int number, u32 (*words)[RUN],
                       Beside beside) {
    for (int k = 0; k < n; ++k) {
        const Words w = philox(first + (u32)k, keys[4], keys[2], keys[3], keys[0], keys[1]);
        words[0][k] = w.a;
        words[1][k] = w.b;
        if (number > 2) words[2][k] = w.c;
        if (number > 3) words[3][k] = w.d;
        beside(k);
    }
}
#endif

INLINE void philox_run(u32 first, int n, const u32* keys, int number, u32 (*words)[RUN]) {
    philox_run(first, n, keys, number, words, [](int) {});
}

#endif
