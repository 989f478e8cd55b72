// Labels from counts: counts uint32 [B, n_bins + 3] (bins, overflow, underflow, saturated) to
// label float32 [B, n_bins]. One element per bin.
//   cumulative  1: N(>L) = halos in this bin and above;  overflow 1: those above the last edge too
//   logarithm   1: log10, an empty bin as if it held one halo (log10(0) -> 0 in 1905.10376)
//   one_halo    float32 [n_bins] (stride 0) or [B, n_bins] (stride n_bins): the label of one halo,
//               which a count is multiplied by, or, being a logarithm, added to

FOR_EACH(make_label,
         (i64 num_samples, i64 num_elements, int cumulative, int overflow, int logarithm,
          i64 one_halo_stride, const float* __restrict__ one_halo, const u32* __restrict__ counts,
          float* __restrict__ label),
         {
             const u32* bins = counts + sample * (num_elements + 3);
             u32 total = bins[element];
             if (cumulative) {
                 for (i64 k = element + 1; k < num_elements; ++k) total += bins[k];
                 if (overflow) total += bins[num_elements];
             }
             const float value = (float)total;
             const float one = one_halo[sample * one_halo_stride + element];
             const float dex = total ? 0.30102999566398120f * portable_log2(value) : 0.0f;
             label[sample * num_elements + element] = logarithm ? dex + one : value * one;
         })
