// The functions of kernels/portable.cuh and kernels/philox.cuh by themselves, for the tests:
// in, out float32 [n]; words uint32 [n]; counter uint32 [n, 4], key uint32 [n, 2].

FOR_EACH(apply_log2, (i64 num_samples, i64 num_elements, const float* in, float* out),
         { out[element] = portable_log2(in[element]); })

FOR_EACH(apply_exp2, (i64 num_samples, i64 num_elements, const float* in, float* out),
         { out[element] = portable_exp2(in[element]); })

FOR_EACH(apply_quarter_turns,
         (i64 num_samples, i64 num_elements, const float* in, float* sine, float* cosine),
         { quarter_turns(in[element], sine + element, cosine + element); })

FOR_EACH(apply_unit_interval, (i64 num_samples, i64 num_elements, const u32* words, float* out),
         { out[element] = unit_interval(words[element]); })

FOR_EACH(apply_normal_pair,
         (i64 num_samples, i64 num_elements, const u32* first, const u32* second, float* a,
          float* b),
         { normal_pair(first[element], second[element], a + element, b + element); })

FOR_EACH(apply_philox,
         (i64 num_samples, i64 num_elements, const u32* counter, const u32* key, u32* out),
         {
             const u32* c = counter + 4 * element;
             const u32* k = key + 2 * element;
             const Words words = philox(c[0], c[1], c[2], c[3], k[0], k[1]);
             out[4 * element] = words.a;
             out[4 * element + 1] = words.b;
             out[4 * element + 2] = words.c;
             out[4 * element + 3] = words.d;
         })
