// Paint halos into intensity cubes and count them per luminosity bin.
//
// Arrays (rows of all lightcones of the bank, one after the other):
//   x, y, z        float32 [num_rows]  comoving position [Mpc], observer at the origin
//   log2_mass      float32 [num_rows]  log2(M / Msun)
//   log2_1pz       float32 [num_rows]  log2(1 + z_obs)
//   channel        int16   [num_rows]  frequency channel of the cube, -1 outside band or mass cut
//   columns        float32 [num_columns, column_stride]  inputs of the luminosity model, then what
//                                      it computes of a halo alone (fill_static)
// Work and samples:
//   items          int64   [num_items, 3]   sample, first row, number of rows (of one tile slice)
//   pose           float64 [B, 11]     rotation (9, row major), fixed-point scale, largest deposit
//   values         float32 [B, values_stride]   see enum Value, then the model's uniforms
//   keys           uint32  [B, 6]      key lo, key hi, index lo, index hi, split and stage, row 0
//   field          float64 [6]         half width in ra and dec [rad], bins per rad in ra and dec,
//                                      1 / pooling factor in ra and dec
//   shape          int32   [6]         n_freq, n_dec, n_ra of the cube, fine n_dec, n_ra, n_bins
// Results (added to what is there):
//   cube           int64   [B, n_freq, n_dec, n_ra]  fixed point: value * scale
//   counts         uint32  [B, n_bins + 3]  bins, overflow, underflow, saturated deposits
//
// Deterministic because every deposit is rounded to an integer before it is added: integer sums
// do not depend on the order. The GPU's loop is in paint_device.cuh, the CPU's loops are in
// paint_host.cuh.
// The luminosity model is printed by streamtrain's tracer: model_log2_luminosity, and where the
// model has them model_sigma (scatter per halo) and model_on_fraction (duty cycle). For unequal
// bins LuminosityBins prints EDGE_STRIDE and two tables: bin_edges, the lower edges [log2 L] with
// 3e38 after them, and bin_of_cell, the bin that each of many equal cells of log2 L begins in.
// A cell holds at most 2 EDGE_STRIDE - 1 edges, mostly one.

//
// What the modifiers of a configuration add is compiled in where they are used:
//   NUM_ADJUSTMENTS  pairs (threshold, shift) in `values`: what is brighter than the threshold
//                    [log2 L] is shifted, one pair after the other
//   LINE_WIDTH       number of the column that holds a halo's place along the frequency axis
//                    [channels of the cube]; the next one holds log2 of its line's standard
//                    deviation [channels]. LINE_INCLINED: times sin i / (sqrt(3) / 2), i random

#ifndef NUM_ADJUSTMENTS
#define NUM_ADJUSTMENTS 0
#endif

enum Value { INTENSITY_FACTOR, INTENSITY_POWER, SCATTER_SIGMA, SCATTER_MU,
             BIN_LOW, BIN_HIGH, BINS_PER_LOG2, FIRST_ADJUSTMENT,
             FIRST_UNIFORM = FIRST_ADJUSTMENT + 2 * NUM_ADJUSTMENTS };

#include "place.cuh"

// Chance of two neighbours, the halos in rows 2 pair and 2 pair + 1 of their lightcone: one call of
// Philox gives both their normals (a, b) and their uniforms (c, d), a second one their inclinations.
#define INCLINATIONS 0x80000000u  // a lightcone has fewer than 2^32 rows, so no pair has this bit

struct Chance {
    float normal;   // for the scatter
    float uniform;  // for the duty cycle
    float inclination;
};

INLINE void pair_chance(u32 pair, const u32* keys, Chance* chance) {
    const Words words = philox(pair, keys[4], keys[2], keys[3], keys[0], keys[1]);
    normal_pair(words.a, words.b, &chance[0].normal, &chance[1].normal);
    chance[0].uniform = unit_interval(words.c);
    chance[1].uniform = unit_interval(words.d);
#ifdef LINE_INCLINED
    const Words more = philox(pair | INCLINATIONS, keys[4], keys[2], keys[3], keys[0], keys[1]);
    chance[0].inclination = unit_interval(more.a);
    chance[1].inclination = unit_interval(more.b);
#else
    chance[0].inclination = chance[1].inclination = 0.5f;
#endif
}

// log2 L [Lsun] of a halo: the model, its log-normal scatter, its duty cycle (a halo that is off
// has L = 2^-126 Lsun, which deposits nothing). A model whose scatter depends on the halo defines
// MODEL_SIGMA, one with a duty cycle MODEL_DUTY.
INLINE float halo_luminosity(float log2_mass, float log2_1pz, const float* columns, i64 stride,
                             float normal, float uniform, const float* values) {
    const float* u = values + FIRST_UNIFORM;
    const float log2_l = model_log2_luminosity(log2_mass, log2_1pz, columns, stride, u);
#ifdef MODEL_SIGMA
    const float width =
        values[SCATTER_SIGMA] * model_sigma(log2_mass, log2_1pz, columns, stride, u);
    float emitted = log2_l + (width * normal + values[SCATTER_MU] * (width * width));
#else
    float emitted = log2_l + (values[SCATTER_SIGMA] * normal + values[SCATTER_MU]);
#endif
    for (int k = 0; k < NUM_ADJUSTMENTS; ++k) {
        const float* pair = values + FIRST_ADJUSTMENT + 2 * k;
        emitted = emitted > pair[0] ? emitted + pair[1] : emitted;
    }
#ifdef MODEL_DUTY
    const float fraction = model_on_fraction(log2_mass, log2_1pz, columns, stride, u);
    return uniform < fraction ? emitted : -126.0f;
#else
    (void)uniform;
    return emitted;
#endif
}

// Map units that a halo adds to its voxel.
INLINE float intensity_of(float log2_l, float log2_1pz, float chi_squared, const float* values) {
    const float luminosity = portable_exp2(log2_l + values[INTENSITY_POWER] * log2_1pz);
    return luminosity * values[INTENSITY_FACTOR] / chi_squared;
}

// The deposit in fixed point, rounded to nearest even: adding 2^52 puts the integer in the mantissa.
INLINE i64 deposit_of(float intensity, const double* pose) {
    double q = (double)intensity * pose[9];
    q = q < pose[10] ? q : pose[10];
    return bits_of(q + 4503599627370496.0) & 0xFFFFFFFFFFFFFll;
}

// Luminosity bin: 0..n_bins-1, n_bins above, n_bins + 1 below (or not a number); last bin closed.
INLINE int bin_of(float log2_l, const float* values, int num_bins) {
    const bool low = log2_l >= values[BIN_LOW];
    const bool high = log2_l > values[BIN_HIGH];
    const float position = (log2_l - values[BIN_LOW]) * values[BINS_PER_LOG2];
    const float not_below = low ? position : 0.0f;
    const int bin = (int)(high ? 0.0f : not_below);
#ifdef EDGE_STRIDE  // unequal bins: `bin` is a cell of a table, which says where to begin
    int inside = bin_of_cell[bin];
    for (int stride = EDGE_STRIDE; stride; stride >>= 1)
        inside += log2_l >= bin_edges[inside + stride] ? stride : 0;
#else
    const int inside = bin < num_bins ? bin : num_bins - 1;
#endif
    const int not_above = high ? num_bins : inside;
    return low ? not_above : num_bins + 1;
}

#ifdef LINE_WIDTH

// The channels that a halo's line reaches, and the share of its light in each of them: the normal
// distribution of frequency between the channel's edges, cut off at REACH standard deviations.
#define REACH 4.0f
struct Line {
    int first, last;  // channels; the first may lie below 0, the last beyond the cube
    float centre, inverse_sigma;
};

INLINE int floor_of(float x) {
    const float bounded = x < -1e4f ? -1e4f : (x > 1e4f ? 1e4f : x);
    const int whole = (int)bounded;
    return whole - (bounded < (float)whole);
}

INLINE Line line_of(float centre, float log2_sigma, float inclination) {
    float sigma = portable_exp2(log2_sigma);
#ifdef LINE_INCLINED
    sigma = sigma * (1.1547005383792515f * square_root(1.0f - inclination * inclination));
#else
    (void)inclination;
#endif
    sigma = sigma > 1e-6f ? sigma : 1e-6f;
    Line line;
    line.first = floor_of(centre - REACH * sigma);
    line.last = floor_of(centre + REACH * sigma);
    line.centre = centre;
    line.inverse_sigma = 1.0f / sigma;
    return line;
}

// Probability that a standard normal is below x, to 2e-7 (Abramowitz and Stegun 7.1.26).
INLINE float normal_cdf(float x) {
    const float size = 0.70710678118654752f * (x < 0.0f ? -x : x);
    const float t = 1.0f / (1.0f + 0.3275911f * size);
    float p = 1.061405429f;
    p = p * t + -1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t + -0.284496736f;
    p = p * t + 0.254829592f;
    const float tail = 0.5f * (p * t * portable_exp2(-1.4426950408889634f * (size * size)));
    return x < 0.0f ? tail : 1.0f - tail;
}

// Share of the light that lies before channel `channel`; 0 and 1 at the ends of the line.
INLINE float line_share(const Line* line, int channel) {
    if (channel <= line->first) return 0.0f;
    if (channel > line->last) return 1.0f;
    return normal_cdf(((float)channel - line->centre) * line->inverse_sigma);
}

// A part of a deposit, rounded like the whole.
INLINE i64 part_of(i64 deposit, float share) {
    const double q = (double)deposit * (double)share;
    return bits_of(q + 4503599627370496.0) & 0xFFFFFFFFFFFFFll;
}

#endif

// What the model says of a halo whatever the parameters, computed once: an element is a row.
#ifdef NUM_STATIC
FOR_EACH(fill_static,
         (i64 num_samples, i64 num_elements, const float* __restrict__ log2_mass,
          const float* __restrict__ log2_1pz, float* __restrict__ columns, i64 stride),
         {
             (void)sample;
             store_static(log2_mass[element], log2_1pz[element], columns + element, stride);
         })
#endif

#ifdef __CUDACC__

#include "paint_device.cuh"

#else

#include "paint_host.cuh"

#endif
