/* One pass each over a piece of a tensor. What is given back is 0 if a number was found, or made, that is not
   finite, else 1. */

#include "stored.h"

/* out = stored */
int64_t widen(float *restrict out, const void *stored, int64_t dtype, int64_t n) {
    uint32_t bad = 0;
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t width = block_width(n, from);
        load(out + from, stored, dtype, from, width);
        for (int64_t i = 0; i < width; i++) bad |= is_bad(out[from + i]);
    }
    return !bad;
}

/* out = stored - base */
int64_t subtract(float *restrict out, const void *stored, int64_t dtype, const float *restrict base, int64_t n) {
    uint32_t bad = 0;
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t width = block_width(n, from);
        load(out + from, stored, dtype, from, width);
        for (int64_t i = from; i < from + width; i++) {
            out[i] -= base[i];
            bad |= is_bad(out[i]);
        }
    }
    return !bad;
}

/* out = the sum of weight * model, over `divisor`, in the order of the models; each step is rounded once */
int64_t weighted_sum(float *restrict out, const pieces *p, const float *restrict weights, float divisor) {
    float values[BLOCK];
    uint32_t bad = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        float *restrict total = out + from;
        load(total, p->model[0], p->dtype[0], from, width);
        if (weights[0] != 1.0f)
            for (int64_t i = 0; i < width; i++) total[i] *= weights[0];
        for (int64_t model = 1; model < p->models; model++) {
            const float weight = weights[model];
            load(values, p->model[model], p->dtype[model], from, width);
            for (int64_t i = 0; i < width; i++) total[i] = __builtin_fmaf(values[i], weight, total[i]);
        }
        if (divisor != 1.0f)
            for (int64_t i = 0; i < width; i++) total[i] /= divisor;
        for (int64_t i = 0; i < width; i++) bad |= is_bad(total[i]);
    }
    return !bad;
}

/* out = base + scale * the sum of weight * (model - base), in the order of the models */
int64_t shifted_base(float *restrict out, const pieces *p, const float *restrict weights, float scale) {
    float base[BLOCK], delta[BLOCK];
    uint32_t bad = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        float *restrict total = out + from;
        load_base(base, p, from, width);
        memset(total, 0, width * sizeof(float));
        for (int64_t model = 0; model < p->models; model++) {
            const float weight = weights[model];
            bad |= load_delta(delta, p, model, base, from, width);
            for (int64_t i = 0; i < width; i++) total[i] = __builtin_fmaf(delta[i], weight, total[i]);
        }
        for (int64_t i = 0; i < width; i++) total[i] = __builtin_fmaf(total[i], scale, base[i]);
    }
    return !bad;
}

/* out = values, rounded to the nearest, ties to even */
int64_t narrow_bfloat16(bfloat16 *restrict out, const float *restrict values, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(values[i]);
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        out[i] = (bfloat16)rounded;
        bad |= (rounded & 0x7f80u) == 0x7f80u;
    }
    return !bad;
}
