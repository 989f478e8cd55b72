// All steps of a transform in one call, for the host: a block of columns after the other, whose rows
// stay in the cache from the first step to the last. The sums are those of fourier.cuh, term by term.

#pragma once

// Columns that go through all steps together, and those of them that are added side by side.
enum { COLUMNS = 64, WIDTH = 32 };

// The steps of an axis, one behind the other: shapes [num_steps, 3] = (rows that a step reads, rows
// that it makes, terms of each), and of all of them the rows and weights of the terms.
struct Steps {
    int num;
    const int* shapes;
    const int* from;
    const float* weights;
};

// Rows of slices, in one plane or two (real and imaginary parts), and how far apart these are.
struct Rows {
    float* at;
    i64 stride, plane;
    int num_planes;
};

template <bool from_waves, bool to_waves>
INLINE void step_of_block(int num_out, int num_terms, const int* from, const float* weights,
                          const float* in, i64 plane_in, float* out, i64 plane_out) {
    for (int row = 0; row < num_out; ++row)
        for (int first = 0; first < COLUMNS; first += WIDTH) {
            float sums[2][WIDTH];
            sum_of_rows<WIDTH, from_waves, to_waves>(from + row * num_terms,
                                                     weights + 2 * row * num_terms, num_terms,
                                                     in + first, COLUMNS, plane_in, WIDTH, sums[0],
                                                     sums[1]);
            float* real = out + row * COLUMNS + first;
            for (int j = 0; j < WIDTH; ++j) real[j] = sums[0][j];
            if (to_waves)
                for (int j = 0; j < WIDTH; ++j) real[plane_out + j] = sums[1][j];
        }
}

// room: 4 * most_rows * COLUMNS numbers, two blocks of real and imaginary parts.
static void through_steps(Steps steps, i64 num_across, Rows in, Rows out, i64 most_rows,
                          float* room) {
    const i64 plane = most_rows * COLUMNS;
    for (i64 first = 0; first < num_across; first += COLUMNS) {
        const int columns = num_across - first < COLUMNS ? (int)(num_across - first) : COLUMNS;
        float* here = room;
        float* there = room + 2 * plane;
        for (int part = 0; part < in.num_planes; ++part)
            for (int row = 0; row < steps.shapes[0]; ++row) {
                const float* source = in.at + part * in.plane + row * in.stride + first;
                float* target = here + part * plane + row * COLUMNS;
                for (int j = 0; j < columns; ++j) target[j] = source[j];
                for (int j = columns; j < COLUMNS; ++j) target[j] = 0.0f;
            }
        const int* from = steps.from;
        const float* weights = steps.weights;
        for (int step = 0; step < steps.num; ++step) {
            const int num_out = steps.shapes[3 * step + 1];
            const int num_terms = steps.shapes[3 * step + 2];
            const bool from_waves = step > 0 || in.num_planes > 1;
            const bool to_waves = step + 1 < steps.num || out.num_planes > 1;
#define STEP(from_waves, to_waves)                                                          \
    step_of_block<from_waves, to_waves>(num_out, num_terms, from, weights, here, plane, there, \
                                        plane)
            if (from_waves && to_waves)
                STEP(true, true);
            else if (from_waves)
                STEP(true, false);
            else if (to_waves)
                STEP(false, true);
            else
                STEP(false, false);
#undef STEP
            from += num_out * num_terms;
            weights += 2 * num_out * num_terms;
            float* made = there;
            there = here;
            here = made;
        }
        const int num_out = steps.shapes[3 * steps.num - 2];
        for (int part = 0; part < out.num_planes; ++part)
            for (int row = 0; row < num_out; ++row) {
                const float* source = here + part * plane + row * COLUMNS;
                float* target = out.at + part * out.plane + row * out.stride + first;
                for (int j = 0; j < columns; ++j) target[j] = source[j];
            }
    }
}

// Slices [num_rows, num_across] through the steps of an axis; most_rows: the most that a step reads
// or makes; room: 4 * most_rows * COLUMNS numbers.
extern "C" void axis_of_slices(i64 num_slices, int num_steps, const int* shapes, const int* from,
                               const float* weights, i64 num_across, int waves_in, int waves_out,
                               i64 most_rows, const float* in, float* out, float* room) {
    const Steps steps = {num_steps, shapes, from, weights};
    const i64 size_in = shapes[0] * num_across;
    const i64 size_out = shapes[3 * num_steps - 2] * num_across;
    for (i64 slice = 0; slice < num_slices; ++slice) {
        const Rows source = {(float*)in + slice * size_in, num_across, num_slices * size_in,
                             1 + waves_in};
        const Rows target = {out + slice * size_out, num_across, num_slices * size_out,
                             1 + waves_out};
        through_steps(steps, num_across, source, target, most_rows, room);
    }
}

// Rows as columns.
static void turned(i64 num_rows, i64 num_columns, Rows in, Rows out) {
    for (int part = 0; part < in.num_planes; ++part)
        for (i64 row = 0; row < num_rows; ++row)
            for (i64 column = 0; column < num_columns; ++column)
                out.at[part * out.plane + column * out.stride + row] =
                    in.at[part * in.plane + row * in.stride + column];
}

// Slices [num_dec, num_ra] to waves along dec, then along ra, times factors, which slice after slice
// takes in turn, and back: what fourier.py does in steps. Four axes, as in axis_of_slices: dec and ra
// to waves, ra and dec back. waves_in: slices are waves; waves_ra, waves_dec: waves along dec, and
// those along ra, are not real. room: 4 * most_rows * COLUMNS + 4 * most_rows^2 numbers.
extern "C" void filter_slices(i64 num_slices, i64 num_factors, int num_dec, int num_ra,
                              const int* num_steps, const int* shapes, const int* from,
                              const float* weights, int waves_in, int waves_dec, int waves_ra,
                              i64 most_rows, const float* factors, const float* in, float* out,
                              float* room) {
    Steps axes[4];
    for (int axis = 0; axis < 4; ++axis) {
        axes[axis] = Steps{num_steps[axis], shapes, from, weights};
        for (int step = 0; step < num_steps[axis]; ++step) {
            from += shapes[1] * shapes[2];
            weights += 2 * shapes[1] * shapes[2];
            shapes += 3;
        }
    }
    const i64 dec_waves = axes[0].shapes[3 * axes[0].num - 2];
    const i64 ra_waves = axes[1].shapes[3 * axes[1].num - 2];
    const i64 size = (i64)num_dec * num_ra, most = most_rows * most_rows;
    float* first = room + 4 * most_rows * COLUMNS;
    float* second = first + 2 * most;
    const Rows by_dec = {first, num_ra, most, 1 + waves_dec};
    const Rows by_ra = {second, dec_waves, most, 1 + waves_dec};
    const Rows waves = {first, dec_waves, most, 1 + waves_ra};
    for (i64 slice = 0; slice < num_slices; ++slice) {
        const Rows source = {(float*)in + slice * size, num_ra, num_slices * size, 1 + waves_in};
        const Rows target = {out + slice * size, num_ra, num_slices * size, 1 + waves_in};
        through_steps(axes[0], num_ra, source, by_dec, most_rows, room);
        turned(dec_waves, num_ra, by_dec, by_ra);
        through_steps(axes[1], dec_waves, by_ra, waves, most_rows, room);
        const float* factor = factors + slice % num_factors * ra_waves * dec_waves;
        for (int part = 0; part < waves.num_planes; ++part)
            for (i64 k = 0; k < ra_waves * dec_waves; ++k)
                first[part * most + k] = first[part * most + k] * factor[k];
        through_steps(axes[2], dec_waves, waves, by_ra, most_rows, room);
        turned(num_ra, dec_waves, by_ra, by_dec);
        through_steps(axes[3], num_ra, by_dec, target, most_rows, room);
    }
}
