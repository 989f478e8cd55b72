// The host's side of paint.cu: a thread paints one sample, in blocks of halos that stay in the
// first cache; loops that vectorise, one after the other, then one that scatters.
//
// place_halo is asked only where quick_voxel cannot tell. What lies outside of the field or band is
// carried along and deposits nothing in voxel 0: branches would cost more.

#pragma once

enum { BLOCK = RUN };

// Random words of two neighbours that are used: two for the scatter, two for the duty cycle.
#ifdef MODEL_DUTY
enum { NUM_WORDS = 4 };
#else
enum { NUM_WORDS = 2 };
#endif

// Of pairs of words the uniforms that halos take in turn.
INLINE void uniforms_of(int pairs, const u32* even, const u32* odd, float* uniform) {
    for (int k = 0; k < pairs; ++k) {
        uniform[2 * k] = unit_interval(even[k]);
        uniform[2 * k + 1] = unit_interval(odd[k]);
    }
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
    u32 words[4][RUN], index[BLOCK];
    float chi_squared[BLOCK], luminosity[BLOCK], normals[BLOCK + 2];
    float uniforms[BLOCK + 2] = {0.0f};
    i64 deposit[BLOCK];
#ifdef LINE_WIDTH
    Line lines[BLOCK];
    float inclinations[BLOCK + 2] = {0.0f};
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
            for (int k = 0; k < n; ++k) {
                voxel[k] = find_quickly(x[start + k], y[start + k], z[start + k], pose, quick,
                                        chi_squared + k);
                unsure |= voxel[k] == UNSURE;
            }
            if (unsure) {
                for (int k = 0; k < n; ++k)
                    if (voxel[k] == UNSURE)
                        voxel[k] = place_halo(x[start + k], y[start + k], z[start + k], pose, field,
                                              shape).voxel;
            }
            const u32 place = (u32)(start - keys[5]);
            const int odd = place & 1u, pairs = (odd + n + 1) / 2;
            philox_run(place >> 1, pairs, keys, NUM_WORDS, words);
            for (int k = 0; k < pairs; ++k)
                normal_pair(words[0][k], words[1][k], normals + 2 * k, normals + 2 * k + 1);
#ifdef MODEL_DUTY
            uniforms_of(pairs, words[2], words[3], uniforms);
#endif
            for (int k = 0; k < n; ++k) {
                const i64 row = start + k;
                luminosity[k] =
                    halo_luminosity(log2_mass[row], log2_1pz[row], columns + row, column_stride,
                                    normals[odd + k], uniforms[odd + k], values);
            }
            for (int k = 0; k < n; ++k) bin[k] = bin_of(luminosity[k], values, num_bins);
            for (int k = 0; k < n; ++k)
                deposit[k] = deposit_of(luminosity[k], log2_1pz[start + k], chi_squared[k], pose,
                                        values);
#ifdef LINE_WIDTH
            (void)index;
            const float* along = columns + LINE_WIDTH * column_stride + start;
#ifdef LINE_INCLINED
            philox_run((place >> 1) | INCLINATIONS, pairs, keys, 2, words);
            uniforms_of(pairs, words[0], words[1], inclinations);
#endif
            for (int k = 0; k < n; ++k)
                lines[k] = line_of(along[k], along[column_stride + k], inclinations[odd + k]);
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
