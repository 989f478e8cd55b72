// A small machine that works out what is drawn for a sample: the formulas that streamtrain's
// Python says of priors, conditions, modifiers, operators and models, recorded as instructions
// (generator/program.py, which prints their numbers and the sizes below as constants).
//
// An instruction is five integers: operation, d, a, b, c. Registers hold float64. What is kept of
// an attempt (`drawn`) outlives the registers, and is what formulas over halos know of a sample.
// On a GPU the threads of a block work on one sample, all doing the same, and share the halos; on a
// CPU WIDTH halos are worked out side by side, in vectors.

#pragma once

#ifdef __CUDACC__
enum { WIDTH = 1 };
#define TURN ((i64)threadIdx.x)
#define TURNS ((i64)blockDim.x)
#define SIDE_BY_SIDE
#define TOGETHER __syncthreads()
#else
enum { WIDTH = 16 };
#define TURN ((i64)0)
#define TURNS ((i64)1)
#define SIDE_BY_SIDE _Pragma("GCC ivdep")
#define TOGETHER
#endif

#define EACH SIDE_BY_SIDE for (int k = 0; k < N; ++k) r[at[1]][k] =

// d = an operation on a, b, c of N numbers side by side; halo: the first of them.
template <int N>
INLINE void operate(const int* at, double (*r)[N], const double* numbers, const double* drawn,
                    i64 halo) {
#define A r[at[2]][k]
#define B r[at[3]][k]
#define C r[at[4]][k]
    switch (at[0]) {
    case NUMBER: EACH numbers[at[2]]; break;
    case HALO: EACH numbers[at[2] + halo + k]; break;
    case DRAWN: EACH drawn[at[2]]; break;
    case ADD: EACH A + B; break;
    case SUB: EACH A - B; break;
    case MUL: EACH A * B; break;
    case DIV: EACH A / B; break;
    case NEG: EACH -A; break;
    case ABS: EACH magnitude(A); break;
    case MIN: EACH (A < B) | (A != A) ? A : B; break;
    case MAX: EACH (A > B) | (A != A) ? A : B; break;
    case SQRT: EACH square_root(A); break;
    case EXP2: EACH exp2_of(A); break;
    case LOG2: EACH log2_of(A); break;
    case LT: EACH A < B ? 1.0 : 0.0; break;
    case LE: EACH A <= B ? 1.0 : 0.0; break;
    case WHERE: EACH A != 0.0 ? B : C; break;
    }
#undef A
#undef B
#undef C
}

// What the instructions begin..end say of `num` halos, one after the other in `terms`.
APART void over_halos(const int* program, int begin, int end, i64 num, const double* numbers,
                       const double* drawn, double* terms) {
    double r[REGISTERS][WIDTH];
    for (i64 halo = TURN * WIDTH; halo < num; halo += TURNS * WIDTH) {
        for (int pc = begin; pc < end; ++pc)
            operate<WIDTH>(program + 5 * pc, r, numbers, drawn, halo);
        const double* last = r[program[5 * end - 4]];
        for (int k = 0; k < WIDTH; ++k) terms[halo + k] = last[k];
    }
    TOGETHER;
}

// Run the instructions begin..end for a sample. Result k is written to out[k * step]; 0 is returned
// where no attempt was accepted, a requirement is broken, or a result is beyond `limit`.
APART int run(const int* program, int begin, int end, const double* numbers, const Sample* of,
               double* terms, float* out, i64 step, float limit) {
    double r[REGISTERS][1], drawn[MAX_DRAWN];
    int good = 1;
    u32 attempt = 0;
    for (int pc = begin; pc < end; ++pc) {
        const int* at = program + 5 * pc;
        switch (at[0]) {
        case UNIFORM: *r[at[1]] = uniform_of(of, at[2], at[3] + attempt * at[4]); break;
        case NORMAL: *r[at[1]] = normal_of(of, at[2], at[3] + attempt * at[4]); break;
        case COUNT: {  // of c numbers from b on that are not above a
            int count = 0;
            for (int k = 0; k < at[4]; ++k) count += numbers[at[3] + k] <= *r[at[2]];
            *r[at[1]] = (double)count;
            break;
        }
        case KEEP: drawn[at[1]] = *r[at[2]]; break;
        case BEGIN: attempt = 0; break;
        case ACCEPT:  // or try again from b on
            if (*r[at[2]] != 0.0) break;
            attempt += 1;
            if (attempt < MAX_ATTEMPTS) pc = at[3] - 1;
            else good = 0;
            break;
        case REQUIRE: good &= *r[at[2]] != 0.0; break;
        case ALL:
        case SUM: {  // of what instructions a..b say of c halos
            over_halos(program, at[2], at[3], at[4], numbers, drawn, terms);
            double total = terms[0];
            for (int k = 1; k < at[4]; ++k)
                total = at[0] == SUM ? total + terms[k] : (terms[k] != 0.0 ? total : 0.0);
            *r[at[1]] = total;
            TOGETHER;
            break;
        }
        case OUT: {
            const float value = (float)*r[at[2]];
            good &= magnitude(value) <= limit;
            if (TURN == 0) out[at[1] * step] = value;
            break;
        }
        default: operate<1>(at, r, numbers, drawn, 0);
        }
    }
    return good;
}
