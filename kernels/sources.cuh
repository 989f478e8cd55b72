// Extragalactic radio point sources. Part of observe.cu, which says what the arrays are.

// e^-x, 0 <= x <= 8, relative error 1e-13: Taylor's series for x / 256, squared eight times.
INLINE double exp_minus(double x) {
    const double y = x * -0.00390625;
    double p = 0.0001984126984126984;
    p = p * y + 0.001388888888888889;
    p = p * y + 0.008333333333333333;
    p = p * y + 0.041666666666666664;
    p = p * y + 0.16666666666666666;
    p = p * y + 0.5;
    p = p * y + 1.0;
    p = p * y + 1.0;
    for (int k = 0; k < 8; ++k) p = p * p;
    return p;
}

// Poisson number with a mean <= 8 from 52 random bits, by summing its probabilities.
INLINE int poisson(u32 high, u32 low, double mean) {
    const i64 bits = (i64)(((u64)high << 20) | (low >> 12));
    const double u = ((double)bits + 0.5) * 2.220446049250313e-16;
    double probability = exp_minus(mean);
    double below = probability;
    int number = 0;
    while (u > below && probability > 1e-18) {
        ++number;
        probability = probability * (mean / (double)number);
        below += probability;
    }
    return number;
}

// Radio sources. An element is a pixel; a mean above 8 is shared by several parts of the pixel. A
// part's number of sources comes from random element `place`, its source n from element
// (n + 1) * places + place. Flux: S in [S1, S1 2^log2_range] with dN/dS ~ S^-slope, inverted:
// S / S1 = (w0 + u (1 - w0))^(1/a), a = 1 - slope, w0 = 2^(a log2_range). By fine channel, of which
// by_freq make one: log2_nu float32 = log2(nu / 31 GHz), response float32 = what 1 mJy adds.
FOR_EACH(radio_sources,
         (i64 num_samples, i64 num_elements, int num_freq, int by_freq, u32 stage,
          double pixel_deg2, float log2_lowest, float log2_range, float alpha_mean,
          float alpha_width, const u32* __restrict__ keys, const float* __restrict__ density,
          const float* __restrict__ slope, const float* __restrict__ log2_nu,
          const float* __restrict__ response, float* __restrict__ cube),
         {
             const u32* key = keys + 6 * sample;
             const double expected = (double)density[sample] * pixel_deg2;
             const int parts = 1 + (int)(expected * 0.125);
             const i64 places = num_elements * parts;
             const float difference = 1.0f - slope[sample];
             const float a = difference * difference < 1e-6f ? 1e-3f : difference;
             const float w0 = portable_exp2(a * log2_range);
             float* spectrum = cube + sample * num_freq * num_elements + element;
             for (int part = 0; part < parts; ++part) {
                 const i64 place = element * parts + part;
                 const Words first =
                     philox((u32)place, key[4] + stage, key[2], key[3], key[0], key[1]);
                 const int number = poisson(first.a, first.b, expected / (double)parts);
                 for (int n = 0; n < number; ++n) {
                     const Words words = philox((u32)((n + 1) * places + place), key[4] + stage,
                                                key[2], key[3], key[0], key[1]);
                     const float w = w0 + unit_interval(words.a) * (1.0f - w0);
                     const float log2_flux = log2_lowest + portable_log2(w) / a;
                     float normal[2];
                     normal_pair(words.b, words.c, normal, normal + 1);
                     const float alpha = alpha_mean + alpha_width * normal[0];
                     for (int freq = 0; freq < num_freq; ++freq) {
                         float sum = 0.0f;
                         for (int k = freq * by_freq; k < (freq + 1) * by_freq; ++k)
                             sum += response[k] * portable_exp2(log2_flux - alpha * log2_nu[k]);
                         spectrum[freq * num_elements] = spectrum[freq * num_elements] + sum;
                     }
                 }
             }
         })
