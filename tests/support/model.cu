// A traced luminosity model by itself, for the tests: log2_mass, log2_1pz, out float32 [n], columns
// float32 [num_columns, n], u the uniforms.

FOR_EACH(apply_model,
         (i64 num_samples, i64 num_elements, const float* log2_mass, const float* log2_1pz,
          const float* columns, const float* u, float* out),
         {
             out[element] = model_log2_luminosity(log2_mass[element], log2_1pz[element],
                                                  columns + element, num_elements, u);
         })

#ifdef NUM_STATIC
FOR_EACH(apply_static,
         (i64 num_samples, i64 num_elements, const float* log2_mass, const float* log2_1pz,
          float* columns),
         {
             (void)sample;
             store_static(log2_mass[element], log2_1pz[element], columns + element, num_elements);
         })
#endif
