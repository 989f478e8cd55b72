// What varies from sample to sample, drawn from its index: where its field lies and which halos that
// can hold, the luminosity model and its parameters, what the paint kernel reads of them; and the
// numbers of the map operators. NumPy says the same in streamtrain/generator (line.py, pose.py),
// to the last bit but for the items, which may hold some more halos: the paint kernel looks at each.
//
// Read:
//   index      int64 [B]              global indices, as uint64
//   seed       uint32 [3]             key lo, key hi, split (as rng.stage_word)
//   layout     int32 [FIRST_MODEL + 2 models]   see enum Layout in the prologue; then first and last
//                                     instruction of each model
//   program, numbers                  see program.cuh; numbers begin with the field's sides in ra and
//                                     dec [deg] and the fixed-point scale
//   cones      float64 [n, CONE_WIDTH]   of each lightcone, see enum Cone
//   tile_rows  int64                  first row of every tile, and of each lightcone one past its last
//   outline    float64 [P, 3]         directions on the border of a field at +z, in turn
// Written:
//   items, pose, values, keys         as in paint.cu; `slots` items per sample (0 rows where there is
//                                     none) for each model, which has all of its samples' and no other
//   lightcone, model   int64 [B]
//   counts     uint32 [B, num_counts] 1 is added to the last where a sample cannot be drawn
//
// A GPU's block draws a sample, a CPU's thread one after the other.

#include "portable64.cuh"
#include "program.cuh"

#ifdef __CUDACC__
#define DRAWS extern "C" __global__ void
#define ROOM extern __shared__ double room[]
#define EACH_SAMPLE for (i64 sample = blockIdx.x; sample < num_samples; sample += gridDim.x)
#else
#define DRAWS extern "C" void
#define ROOM double room[2 * MAX_OUTLINE + MAX_TERMS]
#define EACH_SAMPLE for (i64 sample = 0; sample < num_samples; ++sample)
#endif

INLINE Sample sample_of(const i64* index, i64 sample, const u32* seed) {
    const u64 number = (u64)index[sample];
    const Sample of = {seed[0], seed[1], (u32)number, (u32)(number >> 32), seed[2]};
    return of;
}

INLINE double least(double a, double b) { return a < b ? a : b; }
INLINE double most(double a, double b) { return a > b ? a : b; }
INLINE double between(double x, double low, double high) { return least(most(x, low), high); }

// Where a field lies on its lightcone: its rotation matrix, row by row.
APART void draw_pose(const Sample* of, u32 stage, const double* cone, int roll, int mirror,
                      const double* fov_deg, double* matrix) {
    double u[4], sine, cosine, sin_a, cos_a, sin_d, cos_d;
    for (int k = 0; k < 4; ++k) u[k] = uniform_of(of, stage, 1 + k);
    const double roll_deg = roll == ROLL_ANY ? 360.0 * u[2]
                            : roll == ROLL_QUARTER ? 90.0 * (double)(i64)(4.0 * u[2]) : 0.0;
    sincos_deg(roll_deg, &sine, &cosine);
    const double s = magnitude(sine), c = magnitude(cosine);
    const double half_ra = 0.5 * (c * fov_deg[0] + s * fov_deg[1]) * cone[STRETCH];
    const double half_dec = 0.5 * (s * fov_deg[0] + c * fov_deg[1]);
    const double span_ra = most(cone[RA_MAX] - cone[RA_MIN] - 2.0 * half_ra, 0.0);
    const double span_dec = most(cone[DEC_MAX] - cone[DEC_MIN] - 2.0 * half_dec, 0.0);
    sincos_deg(0.5 * (cone[RA_MIN] + cone[RA_MAX]) + span_ra * (u[0] - 0.5), &sin_a, &cos_a);
    sincos_deg(0.5 * (cone[DEC_MIN] + cone[DEC_MAX]) + span_dec * (u[1] - 0.5), &sin_d, &cos_d);
    const double x[3] = {cos_a, 0.0 * cos_a, sin_a};
    const double y[3] = {sin_a * sin_d, cos_d, -cos_a * sin_d};
    const double z[3] = {-sin_a * cos_d, sin_d, cos_a * cos_d};
    const double sign = (u[3] < 0.5) & mirror ? -1.0 : 1.0;
    for (int k = 0; k < 3; ++k) {
        matrix[k] = sign * (cosine * x[k] - sine * y[k]);
        matrix[3 + k] = sine * x[k] + cosine * y[k];
        matrix[6 + k] = z[k];
    }
}

// Declination's row of tiles.
INLINE int row_of(double dec, const double* cone) {
    return (int)between((dec - cone[DEC_MIN]) / cone[TILE], 0.0, cone[ROWS] - 1.0);
}

// The border of a field on its lightcone's sky: ra and dec [deg] of `num` points.
APART void draw_outline(const double* matrix, const double* outline, i64 num, double* ra,
                         double* dec) {
    for (i64 k = TURN; k < num; k += TURNS) {
        const double* point = outline + 3 * k;
        double sky[3];
        for (int j = 0; j < 3; ++j)  // the inverse rotation
            sky[j] = point[0] * matrix[j] + point[1] * matrix[3 + j] + point[2] * matrix[6 + j];
        const double turn = sky[2] >= 0.0 ? 0.0 : (sky[0] > 0.0 ? -2.0 : 2.0) * HALF_PI;
        ra[k] = (arctan_of(-sky[0] / sky[2]) + turn) / DEG;
        dec[k] = arctan_of(sky[1] / square_root(sky[0] * sky[0] + sky[2] * sky[2])) / DEG;
    }
    TOGETHER;
}

// Columns of tiles of a row that the field inside its border may touch; 0 where there are none.
APART int columns_of(int row, const double* cone, const double* ra, const double* dec, int num,
                      int* begin, int* end) {
    double low = cone[DEC_MIN] + cone[TILE] * row - MARGIN_DEG;
    double high = low + cone[TILE] + 2.0 * MARGIN_DEG;
    if (row == 0) low = -1e300;  // rounding put halos in edge tiles
    if (row == (int)cone[ROWS] - 1) high = 1e300;
    double first = 1e300, last = -1e300;
    for (int k = 0; k < num; ++k) {
        const int next = k + 1 < num ? k + 1 : 0;
        if (row < row_of(least(dec[k], dec[next]) - MARGIN_DEG, cone) ||
            row > row_of(most(dec[k], dec[next]) + MARGIN_DEG, cone))
            continue;
        const double slope = dec[next] == dec[k] ? 1e-12 : dec[next] - dec[k];
        const double a = ra[k] + between((low - dec[k]) / slope, 0.0, 1.0) * (ra[next] - ra[k]);
        const double b = ra[k] + between((high - dec[k]) / slope, 0.0, 1.0) * (ra[next] - ra[k]);
        first = least(first, least(a, b) - MARGIN_DEG);
        last = most(last, most(a, b) + MARGIN_DEG);
    }
    const double columns = cone[COLUMNS];
    *begin = (int)between((first - cone[RA_MIN]) / cone[TILE], 0.0, columns - 1.0);
    *end = (int)between((last - cone[RA_MIN]) / cone[TILE], 0.0, columns - 1.0) + 1;
    return first <= last;
}

// The rows of halos that a field can hold, as items of paint.cu; 0 if there are too many for them.
APART int draw_items(i64 sample, const double* cone, const i64* tile_rows, const double* ra,
                      const double* dec, int num, i64* items, int slots) {
    int bottom = (int)cone[ROWS], top = 0;
    for (int k = 0; k < num; ++k) {
        const int low = row_of(dec[k] - MARGIN_DEG, cone), high = row_of(dec[k] + MARGIN_DEG, cone);
        bottom = low < bottom ? low : bottom;
        top = high > top ? high : top;
    }
    for (i64 slot = TURN; slot < slots; slot += TURNS) {
        const int row = bottom + (int)slot;
        int begin = 0, end = 0;
        i64 first_row = 0, num_rows = 0;
        if (row <= top && columns_of(row, cone, ra, dec, num, &begin, &end)) {
            const i64 tile = (i64)cone[FIRST_TILE] + (i64)row * (i64)cone[COLUMNS];
            first_row = tile_rows[tile + begin];
            num_rows = tile_rows[tile + end] - first_row;
        }
        items[3 * slot] = sample;
        items[3 * slot + 1] = first_row;
        items[3 * slot + 2] = num_rows;
    }
    TOGETHER;
    return top - bottom < slots;
}

DRAWS draw_line(i64 num_samples, const i64* __restrict__ index, const u32* __restrict__ seed,
                const int* __restrict__ layout, const int* __restrict__ program,
                const double* __restrict__ numbers, const double* __restrict__ cones,
                const i64* __restrict__ tile_rows, const double* __restrict__ outline,
                i64 together, i64* __restrict__ items, i64* __restrict__ lightcone,
                i64* __restrict__ model, double* __restrict__ pose, float* __restrict__ values,
                u32* __restrict__ keys, u32* __restrict__ counts, i64 num_counts) {
    ROOM;
    double *ra = room, *dec = room + MAX_OUTLINE, *terms = room + 2 * MAX_OUTLINE;
    const int slots = layout[SLOTS], models = layout[MODELS], points = layout[POINTS];
    EACH_SAMPLE {
        const Sample of = sample_of(index, sample, seed);
        const u32 stage = layout[POSE_STAGE];
        const double place = uniform_of(&of, stage, 0) * (double)layout[CONES];
        const i64 number = (i64)least(place, (double)(layout[CONES] - 1));
        const double* cone = cones + number * CONE_WIDTH;
        double matrix[9];
        draw_pose(&of, stage, cone, layout[ROLL], layout[MIRROR], numbers, matrix);
        int chosen = 0;
        if (models > 1) {
            const double u = uniform_of(&of, layout[MIXTURE_STAGE], 0);
            for (int k = 0; k < models - 1; ++k) chosen += numbers[layout[SHARES] + k] <= u;
        }
        const int* code = layout + FIRST_MODEL + 2 * chosen;
        int good = run(program, code[0], code[1], numbers, &of, terms,
                       values + sample * layout[VALUES], 1, 3.4028235e38f);
        draw_outline(matrix, outline, points, ra, dec);
        for (int k = 0; k < models; ++k) {
            i64* mine = items + (k * num_samples + sample) * slots * 3;
            if (k == chosen)
                good &= draw_items(sample % together, cone, tile_rows, ra, dec, points, mine, slots);
            else
                for (i64 j = TURN; j < 3 * slots; j += TURNS) mine[j] = 0;
        }
        if (TURN != 0) continue;
        for (int k = 0; k < 9; ++k) pose[11 * sample + k] = matrix[k];
        pose[11 * sample + 9] = numbers[2];
        pose[11 * sample + 10] = cone[LARGEST];
        keys[6 * sample] = of.key_lo;
        keys[6 * sample + 1] = of.key_hi;
        keys[6 * sample + 2] = of.index_lo;
        keys[6 * sample + 3] = of.index_hi;
        keys[6 * sample + 4] = of.split | (u32)layout[PAINT_STAGE];
        keys[6 * sample + 5] = (u32)(i64)cone[FIRST_ROW];
        lightcone[sample] = number;
        model[sample] = chosen;
        counts[sample * num_counts + num_counts - 1] += !good;
    }
}

// Numbers of the map operators, float32 [n, B], each at most 1e30 in size.
DRAWS draw_numbers(i64 num_samples, const i64* __restrict__ index, const u32* __restrict__ seed,
                   const int* __restrict__ program, int length,
                   const double* __restrict__ numbers, float* __restrict__ out,
                   u32* __restrict__ counts, i64 num_counts) {
    ROOM;
    EACH_SAMPLE {
        const Sample of = sample_of(index, sample, seed);
        const int good = run(program, 0, length, numbers, &of, room, out + sample, num_samples, 1e30f);
        if (TURN == 0) counts[sample * num_counts + num_counts - 1] += !good;
    }
}
