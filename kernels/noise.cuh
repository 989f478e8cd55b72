// Noise: of one level per sample, or with a level per pixel. Part of observe.cu, which says what the
// arrays are.

// White noise: sigma float32 [B] per voxel. An element is a group of four voxels, which share one
// call of the generator; `stage` is the operator's place in the counter. With a level per pixel,
// relative float32 [num_pixels] times sigma; a pixel where it is negative was not observed and
// becomes 0.
#ifdef __CUDACC__

FOR_EACH(white_noise,
         (i64 num_samples, i64 num_elements, i64 num_voxels, u32 stage,
          const u32* __restrict__ keys, const float* __restrict__ sigma, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const Words words =
                 philox((u32)element, key[4] + stage, key[2], key[3], key[0], key[1]);
             float normal[4];
             normal_pair(words.a, words.b, normal, normal + 1);
             normal_pair(words.c, words.d, normal + 2, normal + 3);
             const float level = sigma[sample];
             float* out = cube + sample * num_voxels;
             for (int k = 0; k < 4; ++k) {
                 const i64 voxel = 4 * element + k;
                 if (voxel < num_voxels) out[voxel] = out[voxel] + level * normal[k];
             }
         })

FOR_EACH(pixel_noise,
         (i64 num_samples, i64 num_elements, i64 num_voxels, i64 num_pixels, u32 stage,
          const u32* __restrict__ keys, const float* __restrict__ sigma,
          const float* __restrict__ relative, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const Words words =
                 philox((u32)element, key[4] + stage, key[2], key[3], key[0], key[1]);
             float normal[4];
             normal_pair(words.a, words.b, normal, normal + 1);
             normal_pair(words.c, words.d, normal + 2, normal + 3);
             float* out = cube + sample * num_voxels;
             for (int k = 0; k < 4; ++k) {
                 const i64 voxel = 4 * element + k;
                 if (voxel < num_voxels) {
                     const float of_pixel = relative[voxel % num_pixels];
                     const float value = out[voxel] + sigma[sample] * of_pixel * normal[k];
                     out[voxel] = of_pixel < 0.0f ? 0.0f : value;
                 }
             }
         })

#else  // in runs of groups, whose loops vectorise

// Standard normals [4 n] of the groups first .. first + n - 1.
INLINE void normals_of_groups(i64 first, int n, const u32* key, u32 stage, float* normal) {
    const u32 keys[6] = {key[0], key[1], key[2], key[3], key[4] + stage, 0u};
    u32 words[4][RUN];
    philox_run((u32)first, n, keys, 4, words);
    for (int k = 0; k < n; ++k) {
        normal_pair(words[0][k], words[1][k], normal + 4 * k, normal + 4 * k + 1);
        normal_pair(words[2][k], words[3][k], normal + 4 * k + 2, normal + 4 * k + 3);
    }
}

// Calls add(voxel, number, normal) for one run of a sample's voxels after the other.
template <typename Add>
INLINE void add_normals(i64 num_elements, i64 num_voxels, u32 stage, const u32* key, Add add) {
    float normal[4 * RUN];
    for (i64 first = 0; first < num_elements; first += RUN) {
        if (num_elements - first >= RUN)
            normals_of_groups(first, RUN, key, stage, normal);
        else
            normals_of_groups(first, (int)(num_elements - first), key, stage, normal);
        const i64 left = num_voxels - 4 * first;
        add(4 * first, (int)(left < 4 * RUN ? left : 4 * RUN), normal);
    }
}

extern "C" void white_noise(i64 num_samples, i64 num_elements, i64 num_voxels, u32 stage,
                            const u32* __restrict__ keys, const float* __restrict__ sigma,
                            float* __restrict__ cube) {
    for (i64 sample = 0; sample < num_samples; ++sample) {
        const float level = sigma[sample];
        float* out = cube + sample * num_voxels;
        add_normals(num_elements, num_voxels, stage, keys + 6 * sample,
                    [=](i64 voxel, int number, const float* normal) {
                        for (int k = 0; k < number; ++k)
                            out[voxel + k] = out[voxel + k] + level * normal[k];
                    });
    }
}

extern "C" void pixel_noise(i64 num_samples, i64 num_elements, i64 num_voxels, i64 num_pixels,
                            u32 stage, const u32* __restrict__ keys,
                            const float* __restrict__ sigma, const float* __restrict__ relative,
                            float* __restrict__ cube) {
    for (i64 sample = 0; sample < num_samples; ++sample) {
        const float level = sigma[sample];
        float* out = cube + sample * num_voxels;
        const auto add = [=](i64 voxel, int number, const float* normal) {
            for (int done = 0; done < number;) {  // slice by slice
                const i64 pixel = (voxel + done) % num_pixels;
                const i64 rest = num_pixels - pixel;
                const int n = rest < number - done ? (int)rest : number - done;
                const float* of_pixel = relative + pixel;
                float* there = out + voxel + done;
                for (int k = 0; k < n; ++k) {
                    const float value = there[k] + level * of_pixel[k] * normal[done + k];
                    there[k] = of_pixel[k] < 0.0f ? 0.0f : value;
                }
                done += n;
            }
        };
        add_normals(num_elements, num_voxels, stage, keys + 6 * sample, add);
    }
}

#endif

// Noise that is correlated along frequency: sigma float32 [B] times the voxel's, float32 [num_freq,
// num_pixels], times root float32 [num_freq, num_freq] (a lower triangle) times white noise, float32
// [B, groups of pixels, num_freq, WIDE_GROUP]. Nothing where the voxel's is negative, as it was not
// observed. element = (group of pixels, frequency).
#define WIDE_GROUP 32
FOR_EACH(correlated_noise,
         (i64 num_samples, i64 num_elements, i64 num_pixels, int num_freq,
          const float* __restrict__ root, const float* __restrict__ voxels,
          const float* __restrict__ sigma, const float* __restrict__ white,
          float* __restrict__ cube),
         {
             const int channel = (int)(element % num_freq);
             const i64 first = WIDE_GROUP * (element / num_freq);
             const float* weight = root + channel * num_freq;
             const float* in = white + (sample * num_elements + element - channel) * WIDE_GROUP;
             float sum[WIDE_GROUP];
             for (int j = 0; j < WIDE_GROUP; ++j) sum[j] = 0.0f;
             for (int k = 0; k <= channel; ++k)
                 for (int j = 0; j < WIDE_GROUP; ++j)
                     sum[j] = sum[j] + weight[k] * in[k * WIDE_GROUP + j];
             const float* level = voxels + channel * num_pixels + first;
             float* out = cube + (sample * num_freq + channel) * num_pixels + first;
             for (int j = 0; j < WIDE_GROUP; ++j)
                 if (first + j < num_pixels && level[j] > 0.0f)
                     out[j] = out[j] + sigma[sample] * level[j] * sum[j];
         })
