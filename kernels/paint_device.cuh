// The GPU's side of paint.cu: the blocks (item, 0), (item, 1), ... paint an item, a thread two
// neighbouring halos at a time, which share a call of Philox.

#pragma once

// Threads of a block, and blocks that the registers leave room for on a multiprocessor.
#ifndef PAINT_BOUNDS
#define PAINT_BOUNDS __launch_bounds__(256, 3)
#endif

extern "C" __global__ void PAINT_BOUNDS
paint(i64 num_items, const i64* __restrict__ items, const float* __restrict__ x,
      const float* __restrict__ y, const float* __restrict__ z, const float* __restrict__ log2_mass,
      const float* __restrict__ log2_1pz, const short* __restrict__ channel,
      const float* __restrict__ columns, i64 column_stride, const double* __restrict__ pose_all,
      const float* __restrict__ values_all, int values_stride, const u32* __restrict__ keys_all,
      const double* __restrict__ field, const int* __restrict__ shape,
      u64* __restrict__ cube, u32* __restrict__ counts) {
    extern __shared__ u32 histogram[];
    if ((i64)blockIdx.x >= num_items) return;
    const i64 sample = items[3 * (i64)blockIdx.x];
    const i64 first_row = items[3 * (i64)blockIdx.x + 1];
    const u32 num_rows = (u32)items[3 * (i64)blockIdx.x + 2];
    const u32 turn = blockIdx.y * blockDim.x;
    if (2u * turn > num_rows) return;
    double pose[11];
    u32 keys[6];
    for (int k = 0; k < 11; ++k) pose[k] = pose_all[sample * 11 + k];
    for (int k = 0; k < 6; ++k) keys[k] = keys_all[sample * 6 + k];
    const Frame quick = frame_of(field, shape);
    const float* values = values_all + sample * values_stride;
    const int num_bins = shape[5];
    for (int k = threadIdx.x; k < num_bins + 3; k += blockDim.x) histogram[k] = 0;
    __syncthreads();
    const u32 frame = (u32)shape[1] * (u32)shape[2];
    u64* out = cube + sample * frame * shape[0];
    const i64 largest = (i64)pose[10];
    const u32 begin = (u32)(first_row - keys[5]), end = begin + num_rows;
    x += keys[5];  // arrays of the sample's lightcone
    y += keys[5];
    z += keys[5];
    log2_mass += keys[5];
    log2_1pz += keys[5];
    channel += keys[5];
    columns += keys[5];
    for (u32 pair = (begin >> 1) + turn + threadIdx.x; 2u * pair < end;
         pair += gridDim.y * blockDim.x) {
        const u32 even = 2u * pair;
        int there[2], slice[2], voxel[2];
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            there[k] = (even + k >= begin) & (even + k < end);
            slice[k] = there[k] ? (channel + even)[k] : -1;
#ifdef LINE_WIDTH
            there[k] = there[k] && (columns + LINE_WIDTH * column_stride + even)[k] > -1e4f;
#else
            there[k] = slice[k] >= 0;
#endif
        }
        if (!(there[0] | there[1])) continue;
        float chi_squared[2];
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            const float px = there[k] ? (x + even)[k] : 1.0f;
            const float py = there[k] ? (y + even)[k] : 1.0f;
            const float pz = there[k] ? (z + even)[k] : 1.0f;
            const int found = find_quickly(px, py, pz, pose, quick, chi_squared + k);
            voxel[k] = there[k] ? found : OUTSIDE;
        }
#pragma unroll 1
        for (u32 k = voxel[0] == UNSURE ? 0 : 1; k < (voxel[1] == UNSURE ? 2 : 1); ++k) {
            const float px = (x + even)[k], py = (y + even)[k], pz = (z + even)[k];
            const int exact = place_halo(px, py, pz, pose, field, shape).voxel;
            voxel[0] = k == 0 ? exact : voxel[0];
            voxel[1] = k == 1 ? exact : voxel[1];
        }
        if ((voxel[0] & voxel[1]) < 0) continue;
        Chance chance[2];
        pair_chance(pair, keys, chance);
        int bin[2];
        i64 q[2];
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            const float mass = there[k] ? (log2_mass + even)[k] : 0.0f;
            const float log2_z = there[k] ? (log2_1pz + even)[k] : 0.0f;
            const u32 row = even + (there[k] ? k : 1u - k);  // one of the two is there
            const float log2_l = halo_luminosity(mass, log2_z, columns + row, column_stride,
                                                 chance[k].normal, chance[k].uniform, values);
            q[k] = deposit_of(intensity_of(log2_l, log2_z, chi_squared[k], values), pose);
            bin[k] = bin_of(log2_l, values, num_bins);
        }
#pragma unroll
        for (u32 k = 0; k < 2; ++k) {
            if (voxel[k] < 0) continue;
#ifdef LINE_WIDTH
            const float* along = columns + LINE_WIDTH * column_stride + even + k;
            const Line line = line_of(along[0], along[column_stride], chance[k].inclination);
            const int past = line.last < shape[0] - 1 ? line.last : shape[0] - 1;
            const int from = line.first > 0 ? line.first : 0;
            float before = line_share(&line, from);
            for (int f = from; f <= past; ++f) {
                const float after = line_share(&line, f + 1);
                atomicAdd(out + ((u32)f * frame + (u32)voxel[k]), (u64)part_of(q[k], after - before));
                before = after;
            }
#else
            atomicAdd(out + ((u32)slice[k] * frame + (u32)voxel[k]), (u64)q[k]);
#endif
            if (slice[k] >= 0) atomicAdd(histogram + bin[k], 1u);
            if (q[k] >= largest) atomicAdd(histogram + num_bins + 2, 1u);
        }
    }
    __syncthreads();
    for (int k = threadIdx.x; k < num_bins + 3; k += blockDim.x)
        if (histogram[k]) atomicAdd(counts + sample * (num_bins + 3) + k, histogram[k]);
}
