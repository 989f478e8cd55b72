// The instructions of PTX that ptx_machine.cpp executes, and their arithmetic: a line in OPERATIONS
// makes one more. A register holds 64 bits, of which a type uses the lowest.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned __int128 u128;
typedef __int128 i128;

static inline u32 bits(float x) { u32 b; __builtin_memcpy(&b, &x, 4); return b; }
static inline u64 bits(double x) { u64 b; __builtin_memcpy(&b, &x, 8); return b; }
static inline float f32(u32 b) { float x; __builtin_memcpy(&x, &b, 4); return x; }
static inline double f64(u64 b) { double x; __builtin_memcpy(&x, &b, 8); return x; }

static inline float size(float x) { return __builtin_fabsf(x); }
static inline double size(double x) { return __builtin_fabs(x); }
static inline float root(float x) { return __builtin_sqrtf(x); }
static inline double root(double x) { return __builtin_sqrt(x); }

// The other one of a number and a NaN; -0 is below 0.
template <typename T>
static inline T least(T x, T y) {
    if (x != x) return y;
    if (y != y) return x;
    return x == y ? (__builtin_signbit(x) ? x : y) : (x < y ? x : y);
}
template <typename T>
static inline T most_of(T x, T y) {
    if (x != x) return y;
    if (y != y) return x;
    return x == y ? (__builtin_signbit(x) ? y : x) : (x > y ? x : y);
}

// Towards zero, to the ends of the range; NaN as the ISA has it.
static inline i32 to_i32(float x) {
    return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1
                                                                             : (i32)x;
}
static inline i32 to_i32(double x) {
    return x != x || x <= -2147483648.0 ? -2147483647 - 1
           : x >= 2147483648.0          ? 2147483647
                                        : (i32)x;
}
static inline i64 to_i64(double x) {
    const i64 lowest = -9223372036854775807ll - 1;
    return x != x || x < -9223372036854775808.0 ? lowest
           : x >= 9223372036854775808.0         ? 9223372036854775807ll
                                                : (i64)x;
}
static inline u32 to_u32(double x) {
    return x != x ? 0x80000000u : x >= 4294967296.0 ? 0xffffffffu : x <= 0.0 ? 0u : (u32)x;
}
static inline u64 to_u64(double x) {
    return x != x                        ? 0x8000000000000000u
           : x >= 18446744073709551616.0 ? 0xffffffffffffffffu
           : x <= 0.0                    ? 0u
                                         : (u64)x;
}

static inline u64 insert(u64 a, u64 b, u32 position, u32 length, u32 width) {
    position &= 0xff, length &= 0xff;
    for (u32 k = 0; k < length && position + k < width; ++k) {
        const u64 bit = 1ull << (position + k);
        b = (b & ~bit) | ((a >> k & 1) ? bit : 0);
    }
    return b;
}

#define A16 ((u32)(u16)r[i->a])
#define B16 ((u32)(u16)r[i->b])
#define C16 ((u32)(u16)r[i->c])
#define A32 ((u32)r[i->a])
#define B32 ((u32)r[i->b])
#define C32 ((u32)r[i->c])
#define A64 (r[i->a])
#define B64 (r[i->b])
#define C64 (r[i->c])
#define FA f32(A32)
#define FB f32(B32)
#define ZA flush(FA)
#define ZB flush(FB)
#define DA f64(A64)
#define DB f64(B64)
#define D16(x) r[i->d] = (u16)(x)
#define D32(x) r[i->d] = (u32)(x)
#define D64(x) r[i->d] = (u64)(x)
#define DF(x) r[i->d] = result(m, x)
#define DD(x) DF(x)
#define DZ(x) DF(flush(x))
#define DIVIDE(zero, x)                                      \
    if (zero) return stop(m, DIVISION, 0, 0);                \
    x
#define LOAD(space, use, T)                                                       \
    {                                                                             \
        const u8* p = find(m, thread, space, use, A64 + (i64)i->offset, sizeof(T)); \
        if (!p) return FAULTY;                                                    \
        T value;                                                                  \
        __builtin_memcpy(&value, p, sizeof(T));                                   \
        r[i->d] = value;                                                          \
    }
#define STORE(space, T)                                                             \
    {                                                                               \
        u8* p = find(m, thread, space, WRITE, A64 + (i64)i->offset, sizeof(T));     \
        if (!p) return FAULTY;                                                      \
        const T value = (T)B64;                                                     \
        __builtin_memcpy(p, &value, sizeof(T));                                     \
    }
#define ADD_AT(space, T)                                                            \
    {                                                                               \
        u8* p = find(m, thread, space, ATOMIC, A64 + (i64)i->offset, sizeof(T));    \
        if (!p) return FAULTY;                                                      \
        T value;                                                                    \
        __builtin_memcpy(&value, p, sizeof(T));                                     \
        const T sum = (T)(value + (T)B64);                                          \
        __builtin_memcpy(p, &sum, sizeof(T));                                       \
        r[i->d] = value;                                                            \
    }

// OP(its name with _ for ., number of operands, what it does)
#define SAME(T, W)                                                                       \
    OP(add_##T, 3, D##W(A##W + B##W))                                                    \
    OP(sub_##T, 3, D##W(A##W - B##W))                                                    \
    OP(mul_lo_##T, 3, D##W(A##W * B##W))                                                 \
    OP(mad_lo_##T, 4, D##W(A##W * B##W + C##W))
#define ORDERED(T, C, W)                                                                 \
    OP(min_##T, 3, D##W((C)A##W < (C)B##W ? A##W : B##W))                                \
    OP(max_##T, 3, D##W((C)A##W > (C)B##W ? A##W : B##W))                                \
    OP(setp_lt_##T, 3, D64((C)A##W < (C)B##W))                                           \
    OP(setp_le_##T, 3, D64((C)A##W <= (C)B##W))                                          \
    OP(setp_gt_##T, 3, D64((C)A##W > (C)B##W))                                           \
    OP(setp_ge_##T, 3, D64((C)A##W >= (C)B##W))                                          \
    OP(setp_eq_##T, 3, D64(A##W == B##W))                                                \
    OP(setp_ne_##T, 3, D64(A##W != B##W))                                                \
    OP(shr_##T, 3, D##W(B32 < W ? (C)A##W >> B32 : (C)A##W >> (W - 1) >> 1))
#define DIVIDED(T, C, W, LOWEST)                                                         \
    OP(div_##T, 3, DIVIDE(!B##W || (LOWEST), D##W((C)A##W / (C)B##W)))                   \
    OP(rem_##T, 3, DIVIDE(!B##W || (LOWEST), D##W((C)A##W % (C)B##W)))
#define BITWISE(T, W)                                                                    \
    OP(and_##T, 3, D##W(A##W & B##W))                                                    \
    OP(or_##T, 3, D##W(A##W | B##W))                                                     \
    OP(xor_##T, 3, D##W(A##W ^ B##W))
#define PLAIN(T, W)                                                                      \
    OP(mov_##T, 2, D##W(A##W))                                                           \
    OP(selp_##T, 4, D##W(C64 & 1 ? A##W : B##W))
#define FLOATING(T, F)                                                                   \
    OP(add_rn_##T, 3, D##F(F##A + F##B))                                                   \
    OP(sub_rn_##T, 3, D##F(F##A - F##B))                                                   \
    OP(mul_rn_##T, 3, D##F(F##A * F##B))                                                   \
    OP(div_rn_##T, 3, D##F(F##A / F##B))                                                   \
    OP(rcp_rn_##T, 2, D##F(1 / F##A))                                                      \
    OP(neg_##T, 2, D##F(-F##A))                                                            \
    OP(min_##T, 3, D##F(least(F##A, F##B)))                                                \
    OP(max_##T, 3, D##F(most_of(F##A, F##B)))                                              \
    OP(setp_eq_##T, 3, D64(F##A == F##B))                                                \
    OP(setp_ne_##T, 3, D64(F##A < F##B || F##A > F##B))                                  \
    OP(setp_lt_##T, 3, D64(F##A < F##B))                                                 \
    OP(setp_le_##T, 3, D64(F##A <= F##B))                                                \
    OP(setp_gt_##T, 3, D64(F##A > F##B))                                                 \
    OP(setp_ge_##T, 3, D64(F##A >= F##B))                                                \
    OP(setp_equ_##T, 3, D64(!(F##A < F##B || F##A > F##B)))                              \
    OP(setp_neu_##T, 3, D64(F##A != F##B))                                               \
    OP(setp_ltu_##T, 3, D64(!(F##A >= F##B)))                                            \
    OP(setp_leu_##T, 3, D64(!(F##A > F##B)))                                             \
    OP(setp_gtu_##T, 3, D64(!(F##A <= F##B)))                                            \
    OP(setp_geu_##T, 3, D64(!(F##A < F##B)))                                             \
    OP(setp_num_##T, 3, D64(F##A == F##A && F##B == F##B))                               \
    OP(setp_nan_##T, 3, D64(F##A != F##A || F##B != F##B))                               \
    OP(abs_##T, 2, D##F(size(F##A)))                                                     \
    OP(sqrt_rn_##T, 2, D##F(root(F##A)))
#define MEMORY(T, C)                                                                     \
    OP(ld_global_##T, 2, LOAD(GLOBAL, READ, C))                                          \
    OP(ld_global_nc_##T, 2, LOAD(GLOBAL, READ_CONSTANT, C))                              \
    OP(ld_shared_##T, 2, LOAD(SHARED, READ, C))                                          \
    OP(ld_local_##T, 2, LOAD(LOCAL, READ, C))                                            \
    OP(st_global_##T, 2, STORE(GLOBAL, C))                                               \
    OP(st_shared_##T, 2, STORE(SHARED, C))                                               \
    OP(st_local_##T, 2, STORE(LOCAL, C))
#define OPERATIONS                                                                       \
    SAME(s16, 16) SAME(u16, 16)                                                          \
    SAME(s32, 32) SAME(u32, 32) SAME(s64, 64) SAME(u64, 64)                              \
    ORDERED(s16, i16, 16) ORDERED(u16, u16, 16)                                          \
    ORDERED(s32, i32, 32) ORDERED(u32, u32, 32) ORDERED(s64, i64, 64) ORDERED(u64, u64, 64) \
    OP(setp_eq_b16, 3, D64(A16 == B16))                                                  \
    OP(setp_ne_b16, 3, D64(A16 != B16))                                                  \
    OP(setp_eq_b32, 3, D64(A32 == B32))                                                  \
    OP(setp_ne_b32, 3, D64(A32 != B32))                                                  \
    OP(setp_eq_b64, 3, D64(A64 == B64))                                                  \
    OP(setp_ne_b64, 3, D64(A64 != B64))                                                  \
    DIVIDED(s32, i32, 32, A32 == 0x80000000u && B32 == ~0u)                              \
    DIVIDED(s64, i64, 64, A64 == 0x8000000000000000u && B64 == ~0ull)                    \
    DIVIDED(u32, u32, 32, 0) DIVIDED(u64, u64, 64, 0)                                    \
    OP(mul_wide_s32, 3, D64((i64)(i32)A32 * (i32)B32))                                   \
    OP(mul_wide_u32, 3, D64((u64)A32 * B32))                                             \
    OP(mad_wide_s32, 4, D64((i64)(i32)A32 * (i32)B32 + (i64)C64))                        \
    OP(mad_wide_u32, 4, D64((u64)A32 * B32 + C64))                                       \
    OP(mul_hi_s32, 3, D32((u64)((i64)(i32)A32 * (i32)B32) >> 32))                        \
    OP(mul_hi_u32, 3, D32((u64)A32 * B32 >> 32))                                         \
    OP(mul_hi_s64, 3, D64((u128)((i128)(i64)A64 * (i64)B64) >> 64))                      \
    OP(mul_hi_u64, 3, D64((u128)A64 * B64 >> 64))                                        \
    OP(neg_s16, 2, D16(-A16))                                                            \
    OP(neg_s32, 2, D32(-A32))                                                            \
    OP(neg_s64, 2, D64(-A64))                                                            \
    BITWISE(b16, 16) BITWISE(b32, 32) BITWISE(b64, 64) BITWISE(pred, 64)                                  \
    OP(not_b16, 2, D16(~A16))                                                            \
    OP(not_b32, 2, D32(~A32))                                                            \
    OP(not_b64, 2, D64(~A64))                                                            \
    OP(not_pred, 2, D64(~A64 & 1))                                                       \
    OP(mov_pred, 2, D64(A64 & 1))                                                        \
    OP(shl_b16, 3, D16(B32 < 16 ? A16 << B32 : 0))                                       \
    OP(shl_b32, 3, D32(B32 < 32 ? A32 << B32 : 0))                                       \
    OP(shl_b64, 3, D64(B32 < 64 ? A64 << B32 : 0))                                       \
    OP(shf_l_wrap_b32, 4, D32(((u64)B32 << 32 | A32) << (C32 & 31) >> 32))               \
    OP(shf_r_wrap_b32, 4, D32(((u64)B32 << 32 | A32) >> (C32 & 31)))                     \
    OP(bfi_b32, 5, D32(insert(A32, B32, C32, (u32)r[i->offset], 32)))                    \
    OP(bfi_b64, 5, D64(insert(A64, B64, C32, (u32)r[i->offset], 64)))                    \
    PLAIN(b16, 16) PLAIN(b32, 32) PLAIN(b64, 64)                                                        \
    OP(cvta_to_global_u64, 2, D64(A64))                                                  \
    OP(cvta_to_local_u64, 2, D64(A64))                                                   \
    OP(cvta_to_shared_u64, 2, D64(A64))                                                  \
    OP(cvta_global_u64, 2, D64(A64))                                                     \
    OP(cvta_local_u64, 2, D64(A64))                                                      \
    OP(cvta_shared_u64, 2, D64(A64))                                                     \
    FLOATING(f32, F) FLOATING(f64, D) FLOATING(ftz_f32, Z)                               \
    OP(cvt_f64_f32, 2, DF((double)FA))                                                   \
    OP(cvt_ftz_f64_f32, 2, DF((double)ZA))                                               \
    OP(cvt_rn_f32_f64, 2, DF((float)DA))                                                 \
    OP(cvt_rn_ftz_f32_f64, 2, DZ((float)DA))                                             \
    OP(cvt_rn_f32_s32, 2, DF((float)(i32)A32))                                           \
    OP(cvt_rn_f32_u32, 2, DF((float)A32))                                                \
    OP(cvt_rn_f64_s32, 2, DF((double)(i32)A32))                                          \
    OP(cvt_rn_f64_u32, 2, DF((double)A32))                                               \
    OP(cvt_rn_f64_s64, 2, DF((double)(i64)A64))                                          \
    OP(cvt_rn_f64_u64, 2, DF((double)A64))                                               \
    OP(cvt_rzi_s32_f32, 2, D32(to_i32(FA)))                                              \
    OP(cvt_rzi_ftz_s32_f32, 2, D32(to_i32(ZA)))                                          \
    OP(cvt_rzi_s32_f64, 2, D32(to_i32(DA)))                                              \
    OP(cvt_rzi_u32_f64, 2, D32(to_u32(DA)))                                              \
    OP(cvt_rzi_s64_f64, 2, D64(to_i64(DA)))                                              \
    OP(cvt_rzi_u64_f64, 2, D64(to_u64(DA)))                                              \
    OP(cvt_s64_s32, 2, D64((i64)(i32)A32))                                               \
    OP(cvt_u64_u32, 2, D64(A32))                                                         \
    OP(high_half, 2, D32(A64 >> 32))                                                     \
    OP(cvt_u32_u64, 2, D32(A64))                                                         \
    OP(cvt_s32_s16, 2, D32((i32)(i16)A16))                                               \
    OP(cvt_s64_s16, 2, D64((i64)(i16)A16))                                               \
    OP(cvt_u32_u16, 2, D32(A16))                                                         \
    OP(cvt_u64_u16, 2, D64(A16))                                                         \
    OP(cvt_u16_u32, 2, D16(A32))                                                         \
    OP(cvt_u16_u64, 2, D16(A64))                                                         \
    MEMORY(b8, u8) MEMORY(b16, u16) MEMORY(b32, u32) MEMORY(b64, u64)                    \
    OP(atom_global_add_u32, 3, ADD_AT(GLOBAL, u32))                                      \
    OP(atom_global_add_u64, 3, ADD_AT(GLOBAL, u64))                                      \
    OP(atom_shared_add_u32, 3, ADD_AT(SHARED, u32))                                      \
    OP(bra, 1, next = i->d; continue)                                                    \
    OP(bar_sync, 1, if (A64) return stop(m, NOT_COVERED, 0, 0); *counter = next + 1; return WAITING) \
    OP(ret, 0, return ENDED)
