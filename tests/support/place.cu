// Where a halo lies by both of the paint kernel's ways, for the tests: x, y, z float32 [n]; quick
// and exact int32 [n].

FOR_EACH(apply_place,
         (i64 num_samples, i64 num_elements, const float* x, const float* y, const float* z,
          const double* r, const double* field, const int* shape, int* quick, int* exact),
         {
             const double px = x[element];
             const double py = y[element];
             const double pz = z[element];
             float chi_squared;
             quick[element] = find_quickly(px, py, pz, r, frame_of(field, shape), &chi_squared);
             exact[element] = place_halo(px, py, pz, r, field, shape).voxel;
         })
