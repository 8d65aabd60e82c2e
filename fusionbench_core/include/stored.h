/* Pieces of tensors as they are stored: what functions in C get of a group. `StoredPieces` makes it. */

#ifndef FUSIONBENCH_STORED_H
#define FUSIONBENCH_STORED_H

#include <stdint.h>
#include <string.h>

#define BLOCK 1024 /* entries of a block: several of them stay in the fastest cache */

typedef uint16_t bfloat16;

enum { STORED_FLOAT, STORED_BFLOAT16 };

typedef struct {
    int64_t entries, models;
    const void *const *model; /* one a model */
    const int64_t *dtype;     /* one a model */
    const void *base;         /* NULL if there is none */
    int64_t base_dtype;
} pieces;

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float wide_bfloat16(bfloat16 stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t is_bad(float value) { return (bits_of(value) & 0x7f800000u) == 0x7f800000u; }

static inline int64_t block_width(int64_t entries, int64_t from) {
    return entries - from < BLOCK ? entries - from : BLOCK;
}

/* out = stored[from:from + width] */
static inline void load(float *restrict out, const void *stored, int64_t dtype, int64_t from, int64_t width) {
    if (dtype == STORED_FLOAT) {
        memcpy(out, (const float *)stored + from, width * sizeof(float));
    } else {
        const bfloat16 *restrict narrow = (const bfloat16 *)stored + from;
        for (int64_t i = 0; i < width; i++) out[i] = wide_bfloat16(narrow[i]);
    }
}

/* Without a base it is 0, which takes nothing away from anything. */
static inline void load_base(float *restrict out, const pieces *p, int64_t from, int64_t width) {
    if (p->base)
        load(out, p->base, p->base_dtype, from, width);
    else
        memset(out, 0, width * sizeof(float));
}

#define TAKE_DELTA(VALUE)                                                                                    \
    for (int64_t i = 0; i < width; i++) {                                                                    \
        const float delta = (VALUE) - base[i];                                                               \
        out[i] = delta;                                                                                      \
        bad |= is_bad(delta);                                                                                \
    }

/* out = model - base. Gives whether anything is NaN or Inf. */
static inline uint32_t load_delta(float *restrict out, const pieces *p, int64_t model,
                                  const float *restrict base, int64_t from, int64_t width) {
    uint32_t bad = 0;
    if (p->dtype[model] == STORED_FLOAT) {
        const float *restrict wide = (const float *)p->model[model] + from;
        TAKE_DELTA(wide[i])
    } else {
        const bfloat16 *restrict narrow = (const bfloat16 *)p->model[model] + from;
        TAKE_DELTA(wide_bfloat16(narrow[i]))
    }
    return bad;
}

#endif
