// Where a halo is painted: its pixel of the field's frame, exactly in float64, and in float32 where
// that cannot differ, which is all but about one halo in 2000 for 64 pixels a side.

#pragma once

struct Place {
    int voxel;         // index in the frame n_dec x n_ra, or -1 outside the field
    float chi_squared; // [Mpc^2]
};

// Rotate a halo to the field's frame (+z = field centre) and find its pixel.
// atan and asin are their Taylor polynomials to order 13: fields up to 20 deg, errors < 1e-12 rad.
INLINE Place place_halo(double x, double y, double z, const double* r, const double* field,
                        const int* shape) {
    const double u = r[0] * x + r[1] * y + r[2] * z;
    const double v = r[3] * x + r[4] * y + r[5] * z;
    const double w = r[6] * x + r[7] * y + r[8] * z;
    const double chi2 = x * x + y * y + z * z;
    const double chi = square_root(chi2);
    const double inverse = 1.0 / (w * chi);
    const double tangent = -(u * chi) * inverse;  // tan(ra) = -u / w
    const double sine = (v * w) * inverse;        // sin(dec) = v / chi
    const double t = tangent * tangent;
    double p = 1.0 / 13.0;
    p = p * t + -1.0 / 11.0;
    p = p * t + 1.0 / 9.0;
    p = p * t + -1.0 / 7.0;
    p = p * t + 1.0 / 5.0;
    p = p * t + -1.0 / 3.0;
    p = p * t + 1.0;
    const double ra = tangent * p;
    const double s = sine * sine;
    p = 231.0 / 13312.0;
    p = p * s + 63.0 / 2816.0;
    p = p * s + 35.0 / 1152.0;
    p = p * s + 5.0 / 112.0;
    p = p * s + 3.0 / 40.0;
    p = p * s + 1.0 / 6.0;
    p = p * s + 1.0;
    const double dec = sine * p;
    const int inside = (w > 0.0) & (t < 0.04) & (s < 0.04) & (ra >= -field[0]) &
                       (ra <= field[0]) & (dec >= -field[1]) & (dec <= field[1]);
    // the last bin of each axis is closed; outside values are replaced before the conversion
    const double column_f = inside ? (ra + field[0]) * field[2] : 0.0;
    const double row_f = inside ? (dec + field[1]) * field[3] : 0.0;
    int column = (int)column_f;
    int row = (int)row_f;
    column = column < shape[4] ? column : shape[4] - 1;
    row = row < shape[3] ? row : shape[3] - 1;
    column = (int)(((double)column + 0.5) * field[4]);
    row = (int)(((double)row + 0.5) * field[5]);
    Place place;
    place.voxel = inside ? row * shape[2] + column : -1;
    place.chi_squared = (float)chi2;
    return place;
}

// The field in voxels: two axes, ra and dec.
struct Frame {
    float bins[2];    // voxels per rad
    float middle[2];  // of the field, counted from the middle of voxel 0
    float sure[2];    // a place at most so far from a voxel's middle is in it for certain
    u32 number[2];    // of voxels
};

// Rounding: from u, v, w and chi^2 rounded to float32 to ra and dec there are at most 13 roundings
// (relative error 2^-24 each), to the place in voxels less than 10 n 2^-24 absolute for n voxels a
// side, the dropped terms of the polynomials included (t and s up to 0.039). Kept is 32 n 2^-24.
INLINE Frame frame_of(const double* field, const int* shape) {
    Frame frame;
    for (int axis = 0; axis < 2; ++axis) {
        const float number = (float)shape[2 - axis];
        frame.bins[axis] = (float)(field[2 + axis] * field[4 + axis]);
        frame.middle[axis] = 0.5f * number - 0.5f;
        frame.sure[axis] = 0.5f - 1.9073486328125e-06f * number;
        frame.number[axis] = (u32)shape[2 - axis];
    }
    return frame;
}

enum { OUTSIDE = -1, UNSURE = -2 };

// A voxel as place_halo's, OUTSIDE, or UNSURE where float32 cannot tell. chi2 > 0 is chi^2.
// Adding 1.5 * 2^23 rounds to the nearest whole number, which the lowest bits then hold; what is
// far outside becomes a number beyond those of voxels.
INLINE int quick_voxel(float u, float v, float w, float chi2, const Frame frame) {
    const float chi = square_root(chi2);
    const float inverse = 1.0f / (w * chi);
    const float tangent = -(u * chi) * inverse;
    const float sine = (v * w) * inverse;
    const float t = tangent * tangent;
    float p = 1.0f / 9.0f;
    p = p * t + -1.0f / 7.0f;
    p = p * t + 1.0f / 5.0f;
    p = p * t + -1.0f / 3.0f;
    p = p * t + 1.0f;
    const float x = tangent * p * frame.bins[0] + frame.middle[0];
    const float s = sine * sine;
    p = 35.0f / 1152.0f;
    p = p * s + 5.0f / 112.0f;
    p = p * s + 3.0f / 40.0f;
    p = p * s + 1.0f / 6.0f;
    p = p * s + 1.0f;
    const float y = sine * p * frame.bins[1] + frame.middle[1];
    const float whole = 12582912.0f, x_whole = x + whole, y_whole = y + whole;
    const u32 column = bits_of(x_whole) - bits_of(whole), row = bits_of(y_whole) - bits_of(whole);
    const int sure = (w > 0.0f) & (t < 0.039f) & (s < 0.039f) &
                     (magnitude(x - (x_whole - whole)) < frame.sure[0]) &
                     (magnitude(y - (y_whole - whole)) < frame.sure[1]);
    const int inside = (column < frame.number[0]) & (row < frame.number[1]);
    const int voxel = inside ? (int)(row * frame.number[0] + column) : OUTSIDE;
    return sure ? voxel : UNSURE;
}

// quick_voxel of a halo, and chi^2 as place_halo rounds it.
INLINE int find_quickly(double x, double y, double z, const double* r, const Frame frame,
                        float* chi_squared) {
    const double u = r[0] * x + r[1] * y + r[2] * z;
    const double v = r[3] * x + r[4] * y + r[5] * z;
    const double w = r[6] * x + r[7] * y + r[8] * z;
    *chi_squared = (float)(x * x + y * y + z * z);
    return quick_voxel((float)u, (float)v, (float)w, *chi_squared, frame);
}

#ifndef __CUDACC__

// What finds voxels wholly in float32, for fields of at most NARROW rad to either side.
struct Narrow {
    float r[9];       // the rotation, to places in voxels where it leads to the frame's x and y
    float series[6];  // of atan, of w / sqrt(u^2 + w^2) and of atan again, of squares of voxels
    float middle[2], sure[2];  // see Frame
    u32 number[2];
};
#define NARROW 0.04

// Rounding: in u = r0 x + r1 y + r2 z the rotation, products and sums are rounded, so that it is off
// by at most 4 2^-24 times the sum of the sizes of its terms, and w likewise: together 4 2^-24 (that
// of u + |tan| that of w) / w in the tangent. Where tangents are below 0.055, a coordinate over w is
// at most `most`. Twice that is kept besides what quick_voxel keeps, which has as many roundings and
// fewer terms (those dropped are below 2e-9 of a place). What is further out is so in float32 too.
INLINE Narrow narrow_of(const double* rotation, const Frame frame) {
    const double bins[2] = {frame.bins[0], frame.bins[1]};
    Narrow narrow;
    double sizes[3] = {0.0, 0.0, 0.0};
    for (int j = 0; j < 3; ++j) {
        const double most = magnitude(rotation[6 + j]) +
                            0.055 * (magnitude(rotation[j]) + magnitude(rotation[3 + j]));
        for (int i = 0; i < 3; ++i) sizes[i] += magnitude(rotation[3 * i + j]) * most;
        narrow.r[j] = (float)(-bins[0] * rotation[j]);
        narrow.r[3 + j] = (float)(bins[1] * rotation[3 + j]);
        narrow.r[6 + j] = (float)rotation[6 + j];
    }
    for (int axis = 0; axis < 2; ++axis) {
        const double off = 4.76837158203125e-07 * (sizes[axis] + 0.055 * sizes[2]);
        narrow.middle[axis] = frame.middle[axis];
        narrow.sure[axis] = frame.sure[axis] - (float)(off * bins[axis]);
        narrow.number[axis] = frame.number[axis];
    }
    const double x2 = 1.0 / (bins[0] * bins[0]), y2 = 1.0 / (bins[1] * bins[1]);
    narrow.series[0] = (float)(-x2 / 3.0);
    narrow.series[1] = (float)(x2 * x2 / 5.0);
    narrow.series[2] = (float)(-x2 / 2.0);
    narrow.series[3] = (float)(x2 * x2 * 3.0 / 8.0);
    narrow.series[4] = (float)(-y2 / 3.0);
    narrow.series[5] = (float)(y2 * y2 / 5.0);
    return narrow;
}

// A voxel as quick_voxel's: ra = atan(-u / w), dec = atan(v / sqrt(u^2 + w^2)).
INLINE int narrow_voxel(float x, float y, float z, const Narrow& narrow) {
    const float *r = narrow.r, *series = narrow.series;
    const float u = r[0] * x + r[1] * y + r[2] * z;
    const float v = r[3] * x + r[4] * y + r[5] * z;
    const float w = r[6] * x + r[7] * y + r[8] * z;
    const float inverse = 1.0f / w;
    const float tangent = u * inverse;
    const float t = tangent * tangent;
    const float x_at = tangent * ((series[1] * t + series[0]) * t + 1.0f) + narrow.middle[0];
    const float slope = v * inverse * ((series[3] * t + series[2]) * t + 1.0f);
    const float s = slope * slope;
    const float y_at = slope * ((series[5] * s + series[4]) * s + 1.0f) + narrow.middle[1];
    const float whole = 12582912.0f, x_whole = x_at + whole, y_whole = y_at + whole;
    const u32 column = bits_of(x_whole) - bits_of(whole), row = bits_of(y_whole) - bits_of(whole);
    const int sure = (w > 1e-30f) & (magnitude(x_at - (x_whole - whole)) < narrow.sure[0]) &
                     (magnitude(y_at - (y_whole - whole)) < narrow.sure[1]);
    const int inside = (column < narrow.number[0]) & (row < narrow.number[1]);
    const int voxel = inside ? (int)(row * narrow.number[0] + column) : OUTSIDE;
    return sure ? voxel : UNSURE;
}

#endif
