// Labels from counts: counts uint32 [B, n_bins + 3] (bins, overflow, underflow, saturated) to
// label float32 [B, n_bins]. One element per bin.
//   cumulative  1: N(>L) = halos in this bin and above;  overflow 1: those above the last edge too
//   logarithm   1: log10, with 0 for an empty bin (the convention of 1905.10376)

FOR_EACH(make_label,
         (i64 num_samples, i64 num_elements, int cumulative, int overflow, int logarithm,
          const u32* __restrict__ counts, float* __restrict__ label),
         {
             const u32* bins = counts + sample * (num_elements + 3);
             u32 total = bins[element];
             if (cumulative) {
                 for (i64 k = element + 1; k < num_elements; ++k) total += bins[k];
                 if (overflow) total += bins[num_elements];
             }
             float value = (float)total;
             if (logarithm)
                 value = total ? 0.30102999566398120f * portable_log2(value) : 0.0f;
             label[sample * num_elements + element] = value;
         })
