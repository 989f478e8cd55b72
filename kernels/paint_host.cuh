// The host's side of paint.cu: a thread paints one sample, in blocks of halos that stay in the
// first cache; loops that vectorise, one after the other, then one that scatters, beside the next
// block's random words.
//
// place_halo is asked only where float32 cannot tell. What lies outside of the field or band is
// carried along and deposits nothing in voxel 0: branches would cost more.

#pragma once

enum { BLOCK = 2 * RUN };

// Random words of two neighbours that are used: two for the scatter, two for the duty cycle.
#ifdef MODEL_DUTY
enum { NUM_WORDS = 4 };
#else
enum { NUM_WORDS = 2 };
#endif

// What does not change from block to block of a sample.
struct Painting {
    double field[6], pose[11];
    float values[FIRST_UNIFORM + NUM_UNIFORMS + 1];
    u32 keys[6];
    int shape[6];
    int is_narrow;
    Frame frame;
    Narrow narrow;
    i64 largest;     // deposit
    float moderate;  // intensity, below which no deposit is the largest
    i64* out;
    u32* histogram;
};

// The halos of a block, from its first one on; see paint.cu.
struct Rows {
    u32 place;  // of the first one in its lightcone
    const float *x, *y, *z, *log2_mass, *log2_1pz;
    const short* channel;
    const float* columns;
    i64 column_stride;
};

struct alignas(64) Block {
    u32 words[4][RUN];
    float normals[BLOCK], uniforms[BLOCK], chi_squared[BLOCK];
    int voxel[BLOCK], bin[BLOCK];
    u32 index[BLOCK];
    i64 deposit[BLOCK];
#ifdef LINE_WIDTH
    Line lines[BLOCK];
    float inclinations[BLOCK];
#endif
};

// Of pairs of words the uniforms that halos take in turn.
INLINE void uniforms_of(int pairs, const u32* even, const u32* odd, float* uniform) {
    for (int k = 0; k < pairs; ++k) {
        uniform[2 * k] = unit_interval(even[k]);
        uniform[2 * k + 1] = unit_interval(odd[k]);
    }
}

// What is compiled to be counted has blocks of any size, and apart what few halos or fields need.
#ifdef ANY_SIZE
#define SELDOM static __attribute__((noinline))
#else
#define SELDOM INLINE
#endif

// Voxels where float32 could not tell.
SELDOM void place_exactly(const Painting& with, const Rows& rows, const int n,
                          int* __restrict__ voxel) {
    for (int k = 0; k < n; ++k)
        if (voxel[k] == UNSURE)
            voxel[k] = place_halo(rows.x[k], rows.y[k], rows.z[k], with.pose, with.field,
                                  with.shape).voxel;
}

// Voxels in a field that is not narrow, and chi^2; returns whether one is UNSURE.
SELDOM int place_widely(const Painting& with, const Rows& rows, const int n,
                        int* __restrict__ voxel, float* __restrict__ chi_squared) {
    const Frame frame = with.frame;
    int unsure = 0;
    for (int k = 0; k < n; ++k) {
        voxel[k] = find_quickly(rows.x[k], rows.y[k], rows.z[k], with.pose, frame, chi_squared + k);
        unsure |= voxel[k] == UNSURE;
    }
    return unsure;
}

// Voxels in the frame, OUTSIDE among them, and chi^2 as place_halo rounds it.
INLINE void place_block(const Painting& with, const Rows& rows, const int n, Block& block) {
    int unsure = 0;
    if (with.is_narrow) {
        const Narrow narrow = with.narrow;
        for (int k = 0; k < n; ++k) {
            block.voxel[k] = narrow_voxel(rows.x[k], rows.y[k], rows.z[k], narrow);
            unsure |= block.voxel[k] == UNSURE;
        }
        for (int k = 0; k < n; ++k) {
            const double x = rows.x[k], y = rows.y[k], z = rows.z[k];
            block.chi_squared[k] = (float)(x * x + y * y + z * z);
        }
    } else {
        unsure = place_widely(with, rows, n, block.voxel, block.chi_squared);
    }
    if (unsure) place_exactly(with, rows, n, block.voxel);
}

INLINE void normals_of(int pairs, const u32 (*words)[RUN], float* normals) {
    for (int k = 0; k < pairs; ++k)
        normal_pair(words[0][k], words[1][k], normals + 2 * k, normals + 2 * k + 1);
}

#ifdef LINE_WIDTH

enum { WAITS = 0 };

INLINE void scatter(const Painting&, const Block&, int, int) {}

INLINE void deposit_block(const Painting& with, const Rows& rows, const int n, const int odd,
                          Block& block) {
    const float* values = with.values;
    const int num_bins = with.shape[5], num_freq = with.shape[0];
    const i64 frame = (i64)with.shape[1] * with.shape[2];
    const float* along = rows.columns + LINE_WIDTH * rows.column_stride;
    i64* out = with.out;
    u32* histogram = with.histogram;
#ifdef LINE_INCLINED
    const int pairs = (odd + n + 1) / 2;
    philox_run((rows.place >> 1) | INCLINATIONS, pairs, with.keys, 2, block.words);
    uniforms_of(pairs, block.words[0], block.words[1], block.inclinations);
#endif
    for (int k = 0; k < n; ++k) {
        const float log2_l =
            halo_luminosity(rows.log2_mass[k], rows.log2_1pz[k], rows.columns + k,
                            rows.column_stride, block.normals[odd + k], block.uniforms[odd + k],
                            values);
        block.bin[k] = bin_of(log2_l, values, num_bins);
        block.deposit[k] = deposit_of(
            intensity_of(log2_l, rows.log2_1pz[k], block.chi_squared[k], values), with.pose);
    }
    for (int k = 0; k < n; ++k)
        block.lines[k] =
            line_of(along[k], along[rows.column_stride + k], block.inclinations[odd + k]);
    for (int k = 0; k < n; ++k) {
        const Line* line = block.lines + k;
        if (!(line->centre > -1e4f) | (block.voxel[k] < 0)) continue;
        const int past = line->last < num_freq - 1 ? line->last : num_freq - 1;
        const int begin = line->first > 0 ? line->first : 0;
        float before = line_share(line, begin);
        for (int f = begin; f <= past; ++f) {
            const float after = line_share(line, f + 1);
            out[f * frame + block.voxel[k]] += part_of(block.deposit[k], after - before);
            before = after;
        }
        histogram[num_bins + 2] += block.deposit[k] >= with.largest;
        if (rows.channel[k] >= 0) histogram[block.bin[k]] += 1u;
    }
}

#else

enum { WAITS = 1 };  // a block is scattered later

INLINE void scatter(const Painting& with, const Block& block, int begin, int end) {
    i64* out = with.out;
    u32* histogram = with.histogram;
    for (int k = begin; k < end; ++k) {
        out[block.index[k]] += block.deposit[k];
        histogram[block.bin[k]] += 1u;
    }
}

INLINE void deposit_block(const Painting& with, const Rows& rows, const int n, const int odd,
                          Block& block) {
    const float* values = with.values;
    const float moderate = with.moderate;
    const int num_bins = with.shape[5];
    const u32 frame = (u32)with.shape[1] * (u32)with.shape[2];
    u32 painted = 0, saturated = 0;
    int bright = 0;
    for (int k = 0; k < n; ++k) {
        const float log2_l =
            halo_luminosity(rows.log2_mass[k], rows.log2_1pz[k], rows.columns + k,
                            rows.column_stride, block.normals[odd + k], block.uniforms[odd + k],
                            values);
        const float intensity =
            intensity_of(log2_l, rows.log2_1pz[k], block.chi_squared[k], values);
        const int bin = bin_of(log2_l, values, num_bins);
        const int slice = rows.channel[k];
        const int good = (slice >= 0) & (block.voxel[k] >= 0);
        block.index[k] = good ? (u32)slice * frame + (u32)block.voxel[k] : 0u;
        block.bin[k] = good ? bin : num_bins + 1;
        block.deposit[k] = deposit_of(good ? intensity : 0.0f, with.pose);
        bright |= !(intensity < moderate);
        painted += (u32)good;
    }
    if (bright)
        for (int k = 0; k < n; ++k) saturated += block.deposit[k] >= with.largest;
    with.histogram[num_bins + 1] -= (u32)n - painted;  // what is carried along
    with.histogram[num_bins + 2] += saturated;
}

#endif

// n halos, up to BLOCK - odd; odd: 1 where the first one is the second of its pair. waiting: halos
// of the block before that are scattered meanwhile, none or BLOCK where there are BLOCK now.
INLINE void paint_block(const Painting& with, const Rows& rows, const int n, const int odd,
                        const int waiting, Block& block) {
    const int pairs = (odd + n + 1) / 2;
    philox_run(rows.place >> 1, pairs, with.keys, NUM_WORDS, block.words, [&](int k) {
        if (waiting) scatter(with, block, 2 * k, 2 * k + 2 * LANES);
    });
    normals_of(pairs, block.words, block.normals);
#ifdef MODEL_DUTY
    uniforms_of(pairs, block.words[2], block.words[3], block.uniforms);
#endif
    place_block(with, rows, n, block);
    deposit_block(with, rows, n, odd, block);
}

SELDOM void turn_narrow(Painting& with) { with.narrow = narrow_of(with.pose, with.frame); }

extern "C" void paint(i64 num_items, const i64* __restrict__ items, const float* __restrict__ x,
                      const float* __restrict__ y, const float* __restrict__ z,
                      const float* __restrict__ log2_mass, const float* __restrict__ log2_1pz,
                      const short* __restrict__ channel, const float* __restrict__ columns,
                      i64 column_stride, const double* __restrict__ pose_all,
                      const float* __restrict__ values_all, int values_stride,
                      const u32* __restrict__ keys_all, const double* __restrict__ field,
                      const int* __restrict__ shape, i64* __restrict__ cube,
                      u32* __restrict__ counts) {
    Block block;
    Painting with;
    for (int k = 0; k < 6; ++k) with.field[k] = field[k];
    for (int k = 0; k < 6; ++k) with.shape[k] = shape[k];
    with.is_narrow = (field[0] <= NARROW) & (field[1] <= NARROW);
    with.frame = frame_of(field, shape);
    for (int k = 0; k < BLOCK; ++k) block.uniforms[k] = 0.0f;
#ifdef LINE_WIDTH
    for (int k = 0; k < BLOCK; ++k) block.inclinations[k] = 0.0f;
#endif
    for (i64 item = 0; item < num_items; ++item) {
        const i64 sample = items[3 * item];
        for (int k = 0; k < 11; ++k) with.pose[k] = pose_all[sample * 11 + k];
        for (int k = 0; k < FIRST_UNIFORM + NUM_UNIFORMS; ++k)
            with.values[k] = values_all[sample * values_stride + k];
        for (int k = 0; k < 6; ++k) with.keys[k] = keys_all[sample * 6 + k];
        turn_narrow(with);
        with.largest = (i64)with.pose[10];
        with.moderate = (float)(0.999 * with.pose[10] / with.pose[9]);
        with.out = cube + sample * shape[0] * shape[1] * shape[2];
        with.histogram = counts + sample * (shape[5] + 3);
        const i64 end = items[3 * item + 1] + items[3 * item + 2];
        int waiting = 0;
        for (i64 start = items[3 * item + 1]; start < end;) {
            const u32 place = (u32)(start - with.keys[5]);
            const int odd = place & 1u;
            const i64 left = end - start;
            const int n = (int)(left < BLOCK - odd ? left : BLOCK - odd);
            const Rows rows = {place, x + start, y + start, z + start, log2_mass + start,
                               log2_1pz + start, channel + start, columns + start, column_stride};
#ifndef ANY_SIZE
            if (n == BLOCK && waiting) {
                paint_block(with, rows, BLOCK, 0, WAITS * BLOCK, block);
            } else
#endif
            {
                scatter(with, block, 0, waiting);
                paint_block(with, rows, n, odd, 0, block);
            }
            waiting = n == BLOCK ? WAITS * BLOCK : 0;
            if (!waiting) scatter(with, block, 0, n);
            start += n;
        }
        scatter(with, block, 0, waiting);
    }
}
