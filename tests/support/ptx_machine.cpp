// A machine that executes PTX, one instruction of one thread at a time. Which thread is next, and
// for how long, is random; blocks begin in random order, some of them at once. Arithmetic is what
// the PTX ISA says: IEEE 754 to nearest, never contracted. Where it leaves a NaN's bits open they
// are random, as are registers and memory that nobody has written.
//
// What is wrong stops it: an address outside of the arrays that the kernel was given, one that its
// access is not aligned to, two threads at the same four bytes without an atomic operation or a
// barrier between them, memory that is written and read as if it were constant, a barrier that part
// of a block does not reach, a division by zero. ptx.py has the sentences.

enum Fault { NONE, OUTSIDE, MISALIGNED, RACE, CONSTANT, BARRIER, DIVISION, ENDLESS, NOT_COVERED };
enum State { RUNNING, WAITING, ENDED, FAULTY };
enum Use { READ, READ_CONSTANT, WRITE, ATOMIC };
enum { TID_X, NTID_X, CTAID_X, CTAID_Y, NCTAID_X, NCTAID_Y };  // the first registers of a thread
enum { MOST_BLOCKS = 8 };                                       // at once

struct Instruction {
    i32 op, guard, negated, d, a, b, c, offset;
};

// Who used four bytes since the launch began.
struct Shadow {
    u32 writer, write_epoch;  // thread + 1, and the number of barriers it had passed
    u32 reader, read_epoch;
    u32 atomic, constant;
    u32 readers;  // 0, one thread, several of a block, several of several blocks
};

struct Launch {
    const Instruction* code;
    const u64* first;  // registers of a thread when it begins
    u64* registers;
    u8 *shared, *local;
    Shadow *shadow, *shared_shadow;
    const u64 *region_begin, *region_size, *region_shadow;
    const u32* order;  // of blocks
    i32* ready;  // threads that can go on, then where each thread is
    u64 shared_base, local_base, shared_size, local_size, seed, most;
    u64 executed, fault_address;
    i32 slots, threads, grid_x, grid_y, resident, regions;
    i32 fault, fault_at, fault_block, fault_thread, fault_other;
};

struct Block {
    u32 number;
    i32 alive, waiting, at;
    u32 epoch;
};

struct Machine {
    Launch* launch;
    Block blocks[MOST_BLOCKS];
    u64 random;
    int region;  // of the last access
};

static inline u64 next_random(Machine* m) {
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static inline u64 result(Machine* m, float x) {
    return x == x ? bits(x) : 0x7fc00000u | ((u32)next_random(m) & 0x803fffffu);
}
static inline u64 result(Machine* m, double x) {
    return x == x ? bits(x) : 0x7ff8000000000000u | (next_random(m) & 0x8007ffffffffffffu);
}

// With .ftz a subnormal number is zero, as operand and as result.
static inline float flush(float x) {
    return __builtin_fabsf(x) < 1.17549435e-38f ? f32(bits(x) & 0x80000000u) : x;
}

static State stop(Machine* m, Fault fault, u64 address, int other) {
    m->launch->fault = fault;
    m->launch->fault_address = address;
    m->launch->fault_other = other;
    return FAULTY;
}

// Whether a use of four bytes goes with those before it; if not, the fault.
static inline Fault uses(Shadow* s, Use use, u32 me, u32 threads, u32 epoch, u32* other) {
    const u32 block = (me - 1) / threads;
    const bool same = s->writer == me;
    const bool after = s->writer && (s->writer - 1) / threads == block && s->write_epoch < epoch;
    *other = s->writer;
    if (use == READ_CONSTANT && s->writer) return CONSTANT;
    if (use == READ || use == READ_CONSTANT) {
        if (s->writer && !same && !after) return RACE;
        const bool in_block = s->readers && s->readers < 3 && (s->reader - 1) / threads == block;
        if (s->readers == 0 || (in_block && s->read_epoch < epoch))
            s->readers = 1;
        else if (!in_block)
            s->readers = s->reader == me ? 1 : 3;
        else if (s->reader != me)
            s->readers = 2;
        s->reader = me, s->read_epoch = epoch;
        s->constant |= use == READ_CONSTANT;
        return NONE;
    }
    if (s->writer && !same && !after && !(use == ATOMIC && s->atomic)) return RACE;
    if (s->constant) return CONSTANT;
    const bool own = s->readers == 0 || (s->readers == 1 && s->reader == me) ||
                     (s->readers < 3 && (s->reader - 1) / threads == block && s->read_epoch < epoch);
    *other = s->reader;
    if (!own) return RACE;
    s->readers = 0, s->writer = me, s->write_epoch = epoch, s->atomic = use == ATOMIC;
    return NONE;
}

static inline Shadow* region_of(Machine* m, u64 address, u64 size) {
    const Launch* l = m->launch;
    if (l->regions == 0) return 0;
    int k = m->region;
    if (address - l->region_begin[k] >= l->region_size[k]) {
        int low = 0, high = l->regions;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            (l->region_begin[middle] <= address ? low : high) = middle;
        }
        m->region = k = low;
    }
    const u64 inside = address - l->region_begin[k];
    if (inside >= l->region_size[k] || inside + size > l->region_size[k]) return 0;
    return l->shadow + l->region_shadow[k] + inside / 4;
}

enum Space { GLOBAL, SHARED, LOCAL };

// Where an access finds its bytes; null for a fault.
static inline u8* find(Machine* m, int thread, Space space, Use use, u64 address, u32 size) {
    Launch* l = m->launch;
    const int slot = thread / l->threads;
    u8* found = (u8*)address;
    Shadow* shadow = 0;
    if (address % size) return stop(m, MISALIGNED, address, 0), (u8*)0;
    if (space == LOCAL) {
        const u64 at = address - l->local_base;
        if (at >= l->local_size || at + size > l->local_size)
            return stop(m, OUTSIDE, address, 0), (u8*)0;
        return l->local + thread * l->local_size + at;
    }
    if (space == SHARED) {
        const u64 at = address - l->shared_base;
        if (at >= l->shared_size || at + size > l->shared_size)
            return stop(m, OUTSIDE, address, 0), (u8*)0;
        found = l->shared + slot * l->shared_size + at;
        shadow = l->shared_shadow + slot * ((l->shared_size + 3) / 4) + at / 4;
    } else {
        shadow = region_of(m, address, size);
        if (!shadow) return stop(m, OUTSIDE, address, 0), (u8*)0;
    }
    const Block* block = m->blocks + slot;
    const u32 me = block->number * l->threads + thread % l->threads + 1;
    for (u32 k = 0; k < (size + 3) / 4; ++k) {
        u32 other;
        const Fault fault = uses(shadow + k, use, me, l->threads, block->epoch, &other);
        if (fault) return stop(m, fault, address, (int)other - 1), (u8*)0;
    }
    return found;
}

#define OP(name, operands, ...) op_##name,
enum Operation { OPERATIONS };
#undef OP
#define OP(name, operands, ...) #name " " #operands " "
extern "C" const char* ptx_operations() { return OPERATIONS; }
#undef OP

static State run_thread(Machine* m, int thread, u64 turns) {
    Launch* l = m->launch;
    u64* r = l->registers + (u64)thread * l->slots;
    i32* counter = l->ready + l->resident * l->threads + thread;
    i32 next = *counter;
    for (u64 turn = 0; turn < turns; ++turn) {
        const Instruction* i = l->code + next;
        l->fault_at = next;
        l->executed += 1;
        if (i->guard >= 0 && (r[i->guard] & 1) == (u64)i->negated) {
            ++next;
            continue;
        }
        switch (i->op) {
#define OP(name, operands, ...) \
    case op_##name: {           \
        __VA_ARGS__;            \
        break;                  \
    }
            OPERATIONS
#undef OP
        }
        ++next;
    }
    *counter = next;
    return RUNNING;
}

// Its threads find in their registers what those of the block before them left there.
static void begin_block(Machine* m, int slot, u32 number, int* num_ready) {
    Launch* l = m->launch;
    Block* block = m->blocks + slot;
    *block = {number, l->threads, 0, -1, 0};
    for (u64 k = 0; k < l->shared_size; ++k)
        l->shared[slot * l->shared_size + k] = (u8)next_random(m);
    const u64 shadows = (l->shared_size + 3) / 4;
    __builtin_memset(l->shared_shadow + slot * shadows, 0, shadows * sizeof(Shadow));
    for (int k = 0; k < l->threads; ++k) {
        const int thread = slot * l->threads + k;
        u64* r = l->registers + (u64)thread * l->slots;
        r[TID_X] = (u64)k, r[NTID_X] = (u64)l->threads;
        r[CTAID_X] = number % (u32)l->grid_x, r[CTAID_Y] = number / (u32)l->grid_x;
        r[NCTAID_X] = (u64)l->grid_x, r[NCTAID_Y] = (u64)l->grid_y;
        for (u64 b = 0; b < l->local_size; ++b)
            l->local[thread * l->local_size + b] = (u8)next_random(m);
        l->ready[l->resident * l->threads + thread] = 0;
        l->ready[(*num_ready)++] = thread;
    }
}

extern "C" int ptx_run(Launch* l) {
    Machine machine = {};
    Machine* m = &machine;
    m->launch = l;
    m->random = l->seed | 1;
    const u32 num_blocks = (u32)l->grid_x * (u32)l->grid_y;
    u32 begun = 0;
    int num_ready = 0;
    for (i64 k = 0; k < (i64)l->resident * l->threads; ++k)
        __builtin_memcpy(l->registers + k * l->slots, l->first, l->slots * sizeof(u64));
    for (int slot = 0; slot < l->resident && begun < num_blocks; ++slot)
        begin_block(m, slot, l->order[begun++], &num_ready);
    while (num_ready) {
        const u64 chance = next_random(m);
        const int at = (int)((chance >> 20) % (u64)num_ready);
        const int thread = l->ready[at], slot = thread / l->threads;
        Block* block = m->blocks + slot;
        l->fault_block = (i32)block->number, l->fault_thread = thread % l->threads;
        // mostly for long, at times for a few instructions
        const u64 turns = 1 + (chance >> 8 & (chance & 3 ? 2047 : 15));
        State state = run_thread(m, thread, turns);
        if (state == RUNNING && l->executed > l->most) state = stop(m, ENDLESS, 0, 0);
        if (state == FAULTY) return l->fault;
        if (state == RUNNING) continue;
        l->ready[at] = l->ready[--num_ready];
        if (state == WAITING) {
            if (block->alive < l->threads || (block->waiting && block->at != l->fault_at))
                return stop(m, BARRIER, 0, 0), l->fault;
            block->at = l->fault_at;
            if (++block->waiting < l->threads) continue;
            block->waiting = 0;
            block->epoch += 1;
            for (int k = 0; k < l->threads; ++k) l->ready[num_ready++] = slot * l->threads + k;
            continue;
        }
        if (block->waiting) return stop(m, BARRIER, 0, 0), l->fault;
        if (--block->alive == 0 && begun < num_blocks)
            begin_block(m, slot, l->order[begun++], &num_ready);
    }
    return NONE;
}
