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
