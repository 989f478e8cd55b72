// Where a halo lies by both of the paint kernel's ways, for the tests: x, y, z float32 [n]; quick
// and exact int32 [n].

FOR_EACH(apply_place,
         (i64 num_samples, i64 num_elements, const float* x, const float* y, const float* z,
          const double* r, const double* field, const int* shape, int* quick, int* exact),
         {
             const double px = x[element];
             const double py = y[element];
             const double pz = z[element];
             const double u = r[0] * px + r[1] * py + r[2] * pz;
             const double v = r[3] * px + r[4] * py + r[5] * pz;
             const double w = r[6] * px + r[7] * py + r[8] * pz;
             const float chi2 = (float)(px * px + py * py + pz * pz);
             quick[element] =
                 quick_voxel((float)u, (float)v, (float)w, chi2, frame_of(field, shape));
             exact[element] = place_halo(px, py, pz, r, field, shape).voxel;
         })
