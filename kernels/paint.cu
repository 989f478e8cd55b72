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
// do not depend on the order. On the GPU a block paints one item; the CPU's loops are in
// paint_host.cuh.
// The luminosity model is printed by streamtrain's tracer: model_log2_luminosity, and where the
// model has them model_sigma (scatter per halo) and model_on_fraction (duty cycle). For unequal
// bins LuminosityBins prints EDGE_STRIDE and two tables: bin_edges, the lower edges [log2 L] with
// 3e38 after them, and bin_of_cell, the bin that each of many equal cells of log2 L begins in.
// A cell holds at most 2 EDGE_STRIDE - 1 edges, mostly one.

//
// What the emitters of a configuration add is compiled in where they are used:
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

struct Place {
    int voxel;         // index in the frame n_dec x n_ra, or -1 outside the field
    float chi_squared; // [Mpc^2]
};

// Rotate a halo to the field's frame (+z = field centre) and find its pixel.
// atan and asin are their Taylor polynomials to order 13: fields up to 20 deg, errors < 1e-12 rad.
INLINE Place place_halo(double x, double y, double z, const double* r, const double* field,
                        const int* shape) {
    const double u = r[0] * x + r[1] * y + r[2] * z;
    const double v = r[3] * x + r[4] * y + r[5] * z;
    const double w = r[6] * x + r[7] * y + r[8] * z;
    const double chi2 = x * x + y * y + z * z;
    const double chi = square_root(chi2);
    const double inverse = 1.0 / (w * chi);
    const double tangent = -(u * chi) * inverse;  // tan(ra) = -u / w
    const double sine = (v * w) * inverse;        // sin(dec) = v / chi
    const double t = tangent * tangent;
    double p = 1.0 / 13.0;
    p = p * t + -1.0 / 11.0;
    p = p * t + 1.0 / 9.0;
    p = p * t + -1.0 / 7.0;
    p = p * t + 1.0 / 5.0;
    p = p * t + -1.0 / 3.0;
    p = p * t + 1.0;
    const double ra = tangent * p;
    const double s = sine * sine;
    p = 231.0 / 13312.0;
    p = p * s + 63.0 / 2816.0;
    p = p * s + 35.0 / 1152.0;
    p = p * s + 5.0 / 112.0;
    p = p * s + 3.0 / 40.0;
    p = p * s + 1.0 / 6.0;
    p = p * s + 1.0;
    const double dec = sine * p;
    const int inside = (w > 0.0) & (t < 0.04) & (s < 0.04) & (ra >= -field[0]) &
                       (ra <= field[0]) & (dec >= -field[1]) & (dec <= field[1]);
    // the last bin of each axis is closed; outside values are replaced before the conversion
    const double column_f = inside ? (ra + field[0]) * field[2] : 0.0;
    const double row_f = inside ? (dec + field[1]) * field[3] : 0.0;
    int column = (int)column_f;
    int row = (int)row_f;
    column = column < shape[4] ? column : shape[4] - 1;
    row = row < shape[3] ? row : shape[3] - 1;
    column = (int)(((double)column + 0.5) * field[4]);
    row = (int)(((double)row + 0.5) * field[5]);
    Place place;
    place.voxel = inside ? row * shape[2] + column : -1;
    place.chi_squared = (float)chi2;
    return place;
}

struct Chance {
    float normal;   // for the scatter
    float uniform;  // for the duty cycle
    float inclination;
};

INLINE Chance halo_chance(u32 element, const u32* keys) {
    const Words words = philox(element, keys[4], keys[2], keys[3], keys[0], keys[1]);
    Chance chance;
    float unused;
    normal_pair(words.a, words.b, &chance.normal, &unused);
    chance.uniform = unit_interval(words.c);
    chance.inclination = unit_interval(words.d);
    return chance;
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

// The deposit in fixed point, rounded to nearest even: adding 2^52 puts the integer in the mantissa.
INLINE i64 deposit_of(float log2_l, float log2_1pz, float chi_squared, const double* pose,
                      const float* values) {
    const float luminosity = portable_exp2(log2_l + values[INTENSITY_POWER] * log2_1pz);
    const float intensity = luminosity * values[INTENSITY_FACTOR] / chi_squared;
    double q = (double)intensity * pose[9];
    q = q < pose[10] ? q : pose[10];
    return bits_of(q + 4503599627370496.0) & 0xFFFFFFFFFFFFFll;
}

// Luminosity bin: 0..n_bins-1, n_bins above, n_bins + 1 below (or not a number); last bin closed.
INLINE int bin_of(float log2_l, const float* values, int num_bins) {
    const int low = log2_l >= values[BIN_LOW];
    const int high = log2_l > values[BIN_HIGH];
    const float position = (log2_l - values[BIN_LOW]) * values[BINS_PER_LOG2];
    const int bin = (int)((low & !high) ? position : 0.0f);
#ifdef EDGE_STRIDE  // unequal bins: `bin` is a cell of a table, which says where to begin
    int inside = bin_of_cell[bin];
    for (int stride = EDGE_STRIDE; stride; stride >>= 1)
        inside += log2_l >= bin_edges[inside + stride] ? stride : 0;
#else
    const int inside = bin < num_bins ? bin : num_bins - 1;
#endif
    return low ? (high ? num_bins : inside) : num_bins + 1;
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

extern "C" __global__ void __launch_bounds__(256)
paint(i64 num_items, const i64* __restrict__ items, const float* __restrict__ x,
      const float* __restrict__ y, const float* __restrict__ z, const float* __restrict__ log2_mass,
      const float* __restrict__ log2_1pz, const short* __restrict__ channel,
      const float* __restrict__ columns, i64 column_stride, const double* __restrict__ pose_all,
      const float* __restrict__ values_all, int values_stride, const u32* __restrict__ keys_all,
      const double* __restrict__ field_in, const int* __restrict__ shape_in,
      u64* __restrict__ cube, u32* __restrict__ counts) {
    extern __shared__ u32 histogram[];
    if ((i64)blockIdx.x >= num_items) return;
    const i64 sample = items[3 * (i64)blockIdx.x];
    const i64 first = items[3 * (i64)blockIdx.x + 1];
    const int num_rows = (int)items[3 * (i64)blockIdx.x + 2];
    double pose[11], field[6];
    int shape[6];
    u32 keys[6];
    for (int k = 0; k < 11; ++k) pose[k] = pose_all[sample * 11 + k];
    for (int k = 0; k < 6; ++k) field[k] = field_in[k];
    for (int k = 0; k < 6; ++k) shape[k] = shape_in[k];
    for (int k = 0; k < 6; ++k) keys[k] = keys_all[sample * 6 + k];
    const float* values = values_all + sample * values_stride;
    const int num_bins = shape[5];
    for (int k = threadIdx.x; k < num_bins + 3; k += blockDim.x) histogram[k] = 0;
    __syncthreads();
    const i64 frame = (i64)shape[1] * shape[2];
    u64* out = cube + sample * frame * shape[0];
    for (int k = threadIdx.x; k < num_rows; k += blockDim.x) {
        const i64 row = first + k;
        const int slice = channel[row];
#ifdef LINE_WIDTH
        const float centre = columns[LINE_WIDTH * column_stride + row];
        if (!(centre > -1e4f)) continue;
#else
        if (slice < 0) continue;
#endif
        const Place place = place_halo(x[row], y[row], z[row], pose, field, shape);
        if (place.voxel < 0) continue;
        const Chance chance = halo_chance((u32)(row - keys[5]), keys);
        const float log2_l = halo_luminosity(log2_mass[row], log2_1pz[row], columns + row,
                                             column_stride, chance.normal, chance.uniform, values);
        const i64 q = deposit_of(log2_l, log2_1pz[row], place.chi_squared, pose, values);
#ifdef LINE_WIDTH
        const Line line = line_of(centre, columns[(LINE_WIDTH + 1) * column_stride + row],
                                  chance.inclination);
        const int end = line.last < shape[0] - 1 ? line.last : shape[0] - 1;
        const int begin = line.first > 0 ? line.first : 0;
        float before = line_share(&line, begin);
        for (int f = begin; f <= end; ++f) {
            const float after = line_share(&line, f + 1);
            atomicAdd(out + f * frame + place.voxel, (u64)part_of(q, after - before));
            before = after;
        }
        if (slice < 0) {
            if (q >= (i64)pose[10]) atomicAdd(histogram + num_bins + 2, 1u);
            continue;
        }
#else
        atomicAdd(out + slice * frame + place.voxel, (u64)q);
#endif
        atomicAdd(histogram + bin_of(log2_l, values, num_bins), 1u);
        if (q >= (i64)pose[10]) atomicAdd(histogram + num_bins + 2, 1u);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < num_bins + 3; k += blockDim.x)
        if (histogram[k]) atomicAdd(counts + sample * (num_bins + 3) + k, histogram[k]);
}

#else

#include "paint_host.cuh"

#endif
