// What a host compiler must leave alone, as loops like those of the kernels: streamtrain_probe fills
// out32 [NUM_PROBES, n] and out64 [NUM_PROBES, n] with one result per operation and element, from
// a, b, c [n] in either precision. The answers are known (streamtrain/numerics/probe.py). It is
// linked to every library, compiled once with the very options of the kernels.

#define PROBES(T, x, y, z, out, root)                                                      \
    for (long long i = 0; i < n; ++i) out[i] = x[i] * y[i] + z[i];                         \
    for (long long i = 0; i < n; ++i) out[n + i] = z[i] - x[i] * y[i];                     \
    for (long long i = 0; i < n; ++i) out[2 * n + i] = (x[i] + z[i]) - x[i];               \
    for (long long i = 0; i < n; ++i) out[3 * n + i] = x[i] / z[i];                        \
    for (long long i = 0; i < n; ++i) out[4 * n + i] = x[i] / z[i] + y[i] / z[i] + (T)3 / z[i]; \
    for (long long i = 0; i < n; ++i) out[5 * n + i] = root(x[i]);                         \
    for (long long i = 0; i < n; ++i) out[6 * n + i] = (T)1 / root(x[i]);                  \
    for (long long i = 0; i < n; ++i) out[7 * n + i] = x[i] * tiny;                        \
    for (long long i = 0; i < n; ++i) out[8 * n + i] = (T)(x[i] * 0.1);                    \
    for (long long i = 0; i < n; ++i) out[9 * n + i] = odd[i % 4] + (T)0;                  \
    for (long long i = 0; i < n; ++i) {                                                    \
        const T value = odd[i % 4];                                                        \
        out[10 * n + i] = value > (T)-126 ? value : (T)-126;                               \
    }                                                                                      \
    for (long long i = 0; i < n; ++i)                                                      \
        out[11 * n + i] = ((x[i] * y[i] + z[i]) * y[i] + x[i]) * y[i] + (T)1;              \
    T sum = 0;                                                                             \
    for (long long i = 0; i < n; ++i) sum += x[i] * y[i];                                  \
    for (long long i = 0; i < n; ++i) out[12 * n + i] = sum;                               \
    const T shifter = sizeof(T) == 4 ? (T)12582912.0 : (T)6755399441055744.0;              \
    for (long long i = 0; i < n; ++i) out[13 * n + i] = (z[i] * (T)100 + shifter) - shifter;

extern "C" void streamtrain_probe(long long n, const float* a, const float* b, const float* c,
                                  const float* odd32, float tiny32, float* out32, const double* d,
                                  const double* e, const double* f, const double* odd64,
                                  double tiny64, double* out64) {
    {
        const float* odd = odd32;
        const float tiny = tiny32;
        PROBES(float, a, b, c, out32, __builtin_sqrtf)
    }
    {
        const double* odd = odd64;
        const double tiny = tiny64;
        PROBES(double, d, e, f, out64, __builtin_sqrt)
    }
}
