// Where a halo lies by all of the paint kernel's ways, for the tests: x, y, z float32 [n]; quick,
// narrow (for fields that are not, as quick) and exact int32 [n].

FOR_EACH(apply_place,
         (i64 num_samples, i64 num_elements, const float* x, const float* y, const float* z,
          const double* r, const double* field, const int* shape, int* quick,
          int* narrow, int* exact),
         {
             const double px = x[element];
             const double py = y[element];
             const double pz = z[element];
             float chi_squared;
             const Frame frame = frame_of(field, shape);
             quick[element] = find_quickly(px, py, pz, r, frame, &chi_squared);
             narrow[element] = quick[element];
             if ((field[0] <= NARROW) & (field[1] <= NARROW))
                 narrow[element] =
                     narrow_voxel(x[element], y[element], z[element], narrow_of(r, frame));
             exact[element] = place_halo(px, py, pz, r, field, shape).voxel;
         })
