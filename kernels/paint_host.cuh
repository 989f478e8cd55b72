// The host's side of paint.cu: a thread paints one sample, in blocks of halos that stay in the
// first cache; loops that vectorise, one after the other, then one that scatters.
//
// The voxel is found in float32 (quick_voxel) where that cannot differ from place_halo, which is
// asked where it could: about one halo in 4000 for 64 pixels a side. What lies outside of the field
// or band is carried along and deposits nothing in voxel 0: branches would cost more.

#pragma once

enum { BLOCK = RUN, OUTSIDE = -1, UNSURE = -2 };

// Random words of a halo that are used: two for the scatter, one for the duty cycle, one for the
// inclination.
#if defined(LINE_INCLINED)
enum { NUM_WORDS = 4 };
#elif defined(MODEL_DUTY)
enum { NUM_WORDS = 3 };
#else
enum { NUM_WORDS = 2 };
#endif

// The field in voxels: two axes, ra and dec.
struct Frame {
    float bins[2];   // voxels per rad
    float half[2];   // half of the number of voxels
    float guard[2];  // more than the error of a place in float32
    int n_ra;
};

// Rounding: from u, v, w and chi^2 rounded to float32 to ra and dec there are at most 13 roundings
// (relative error 2^-24 each), to the place in voxels less than 10 n 2^-24 absolute for n voxels a
// side, the dropped terms of the polynomials included (t and s up to 0.039). The guard is 32 n 2^-24.
INLINE Frame frame_of(const double* field, const int* shape) {
    Frame frame;
    for (int axis = 0; axis < 2; ++axis) {
        const float number = (float)shape[2 - axis];
        frame.bins[axis] = (float)(field[2 + axis] * field[4 + axis]);
        frame.half[axis] = 0.5f * number;
        frame.guard[axis] = 1.9073486328125e-06f * number;
    }
    frame.n_ra = shape[2];
    return frame;
}

// A voxel as place_halo's, OUTSIDE, or UNSURE where float32 cannot tell. chi2 > 0 is chi^2.
INLINE int quick_voxel(float u, float v, float w, float chi2, const Frame frame) {
    const float chi = square_root(chi2);
    const float inverse = 1.0f / (w * chi);
    const float tangent = -(u * chi) * inverse;
    const float sine = (v * w) * inverse;
    const float t = tangent * tangent;
    float p = 1.0f / 9.0f;
    p = p * t + -1.0f / 7.0f;
    p = p * t + 1.0f / 5.0f;
    p = p * t + -1.0f / 3.0f;
    p = p * t + 1.0f;
    const float ra = tangent * p * frame.bins[0];
    const float s = sine * sine;
    p = 35.0f / 1152.0f;
    p = p * s + 5.0f / 112.0f;
    p = p * s + 3.0f / 40.0f;
    p = p * s + 1.0f / 6.0f;
    p = p * s + 1.0f;
    const float dec = sine * p * frame.bins[1];
    float x = ra + frame.half[0], y = dec + frame.half[1];
    x = x > 0.0f ? x : 0.0f;  // whatever is far outside must fit an int
    y = y > 0.0f ? y : 0.0f;
    x = x < 1e6f ? x : 0.0f;
    y = y < 1e6f ? y : 0.0f;
    const int column = (int)x, row = (int)y;
    const float from_middle_x = __builtin_fabsf(x - (float)column - 0.5f);
    const float from_middle_y = __builtin_fabsf(y - (float)row - 0.5f);
    const float size_ra = __builtin_fabsf(ra), size_dec = __builtin_fabsf(dec);
    const int ahead = (w > 0.0f) & (t < 0.039f) & (s < 0.039f);
    const int outside = ahead & ((size_ra > frame.half[0] + frame.guard[0]) |
                                 (size_dec > frame.half[1] + frame.guard[1]));
    const int sure = ahead & (size_ra < frame.half[0]) & (size_dec < frame.half[1]) &
                     (from_middle_x < 0.5f - frame.guard[0]) &
                     (from_middle_y < 0.5f - frame.guard[1]);
    const int inside = row * frame.n_ra + column, elsewhere = UNSURE + outside;
    return sure ? inside : elsewhere;
}

extern "C" void paint(i64 num_items, const i64* __restrict__ items, const float* __restrict__ x,
                      const float* __restrict__ y, const float* __restrict__ z,
                      const float* __restrict__ log2_mass, const float* __restrict__ log2_1pz,
                      const short* __restrict__ channel, const float* __restrict__ columns,
                      i64 column_stride, const double* __restrict__ pose_all,
                      const float* __restrict__ values_all, int values_stride,
                      const u32* __restrict__ keys_all, const double* __restrict__ field_in,
                      const int* __restrict__ shape_in, i64* __restrict__ cube,
                      u32* __restrict__ counts) {
    int voxel[BLOCK], bin[BLOCK];
    u32 words[4][BLOCK] = {{0}}, index[BLOCK];
    float chi_squared[BLOCK], luminosity[BLOCK];
    i64 deposit[BLOCK];
#ifdef LINE_WIDTH
    Line lines[BLOCK];
#endif
    double field[6];
    int shape[6];
    for (int k = 0; k < 6; ++k) field[k] = field_in[k];
    for (int k = 0; k < 6; ++k) shape[k] = shape_in[k];
    const int num_bins = shape[5];
    const i64 frame = (i64)shape[1] * shape[2];
    const Frame quick = frame_of(field, shape);
    for (i64 item = 0; item < num_items; ++item) {
        const i64 sample = items[3 * item];
        double pose[11];
        float values[FIRST_UNIFORM + NUM_UNIFORMS + 1];
        u32 keys[6];
        for (int k = 0; k < 11; ++k) pose[k] = pose_all[sample * 11 + k];
        for (int k = 0; k < FIRST_UNIFORM + NUM_UNIFORMS; ++k)
            values[k] = values_all[sample * values_stride + k];
        for (int k = 0; k < 6; ++k) keys[k] = keys_all[sample * 6 + k];
        i64* out = cube + sample * frame * shape[0];
        u32* histogram = counts + sample * (num_bins + 3);
        const i64 largest = (i64)pose[10];
        const i64 end = items[3 * item + 1] + items[3 * item + 2];
        for (i64 start = items[3 * item + 1]; start < end; start += BLOCK) {
            const int n = (int)(end - start < BLOCK ? end - start : BLOCK);
            int unsure = 0;
            for (int k = 0; k < n; ++k) {  // u, v, w and chi^2 are place_halo's
                const double px = x[start + k], py = y[start + k], pz = z[start + k];
                const double u = pose[0] * px + pose[1] * py + pose[2] * pz;
                const double v = pose[3] * px + pose[4] * py + pose[5] * pz;
                const double w = pose[6] * px + pose[7] * py + pose[8] * pz;
                chi_squared[k] = (float)(px * px + py * py + pz * pz);
                voxel[k] = quick_voxel((float)u, (float)v, (float)w, chi_squared[k], quick);
                unsure |= voxel[k] == UNSURE;
            }
            if (unsure) {
                for (int k = 0; k < n; ++k)
                    if (voxel[k] == UNSURE)
                        voxel[k] = place_halo(x[start + k], y[start + k], z[start + k], pose, field,
                                              shape).voxel;
            }
            philox_run((u32)(start - keys[5]), n, keys, NUM_WORDS, words);
            for (int k = 0; k < n; ++k) {
                const i64 row = start + k;
                float normal, unused;
                normal_pair(words[0][k], words[1][k], &normal, &unused);
                luminosity[k] =
                    halo_luminosity(log2_mass[row], log2_1pz[row], columns + row, column_stride,
                                    normal, unit_interval(words[2][k]), values);
            }
            for (int k = 0; k < n; ++k) bin[k] = bin_of(luminosity[k], values, num_bins);
            for (int k = 0; k < n; ++k)
                deposit[k] = deposit_of(luminosity[k], log2_1pz[start + k], chi_squared[k], pose,
                                        values);
#ifdef LINE_WIDTH
            (void)index;
            const float* along = columns + LINE_WIDTH * column_stride + start;
            for (int k = 0; k < n; ++k)
                lines[k] = line_of(along[k], along[column_stride + k], unit_interval(words[3][k]));
            for (int k = 0; k < n; ++k) {
                const Line* line = lines + k;
                if (!(line->centre > -1e4f) | (voxel[k] < 0)) continue;
                const int past = line->last < shape[0] - 1 ? line->last : shape[0] - 1;
                const int begin = line->first > 0 ? line->first : 0;
                float before = line_share(line, begin);
                for (int f = begin; f <= past; ++f) {
                    const float after = line_share(line, f + 1);
                    out[f * frame + voxel[k]] += part_of(deposit[k], after - before);
                    before = after;
                }
                histogram[num_bins + 2] += deposit[k] >= largest;
                if (channel[start + k] >= 0) histogram[bin[k]] += 1u;
            }
#else
            u32 painted = 0, saturated = 0;
            for (int k = 0; k < n; ++k) {
                const int slice = channel[start + k];
                const int good = (slice >= 0) & (voxel[k] >= 0);
                index[k] = good ? (u32)slice * (u32)frame + (u32)voxel[k] : 0u;
                bin[k] = good ? bin[k] : num_bins + 1;
                deposit[k] = good ? deposit[k] : 0;
                saturated += deposit[k] >= largest;
                painted += (u32)good;
            }
            for (int k = 0; k < n; ++k) {
                out[index[k]] += deposit[k];
                histogram[bin[k]] += 1u;
            }
            histogram[num_bins + 1] -= (u32)n - painted;  // what was carried along
            histogram[num_bins + 2] += saturated;
#endif
        }
    }
}
