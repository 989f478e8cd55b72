// FOR_EACH(name, (arguments), body): one statement of a per-element function becomes a CUDA
// kernel (element = thread, sample = blockIdx.y and on) and a host loop over samples and elements.
// `element` and `sample` are its variables; every argument list starts with
// `i64 num_samples, i64 num_elements`.

#pragma once

#ifdef __CUDACC__
#define FOR_EACH(name, arguments, body)                                                    \
    extern "C" __global__ void name arguments {                                            \
        for (i64 sample = blockIdx.y; sample < num_samples; sample += gridDim.y)           \
            for (i64 element = (i64)blockIdx.x * blockDim.x + threadIdx.x;                 \
                 element < num_elements; element += (i64)gridDim.x * blockDim.x) body      \
    }
#else
#define FOR_EACH(name, arguments, body)                                                    \
    extern "C" void name arguments {                                                       \
        for (i64 sample = 0; sample < num_samples; ++sample)                               \
            for (i64 element = 0; element < num_elements; ++element) body                  \
    }
#endif
