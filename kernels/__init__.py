"""The C++ that NVRTC compiles for a GPU and the machine's compiler for a CPU.

`paint.cu` says what a painted map is made of: a halo's luminosity, its bin, its deposit.
`draw.cu` draws what varies between samples, by the small machine of `program.cuh`.
`place.cuh` finds its voxel; `paint_device.cuh` and `paint_host.cuh` are the loops of GPU and CPU.
`label.cu` turns counts into labels, `rates.cu` halo rates into lightcones, `observe.cu` and what it
includes are the map operators. `portable.cuh` and `philox.cuh` are the arithmetic and the random
numbers that all share, `portable64.cuh` those of draws.
"""
