/* One pass each over a piece of a tensor. What is given back is 0 if a number was found, or made, that is not
   finite, else 1. */

#include <stdint.h>
#include <string.h>

typedef uint16_t bfloat16;

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

static inline float wide_float(float stored) { return stored; }

static inline uint32_t is_bad(float value) { return (bits_of(value) & 0x7f800000u) == 0x7f800000u; }

#define FOR_STORED(TYPE)                                                                                     \
    /* out = stored */                                                                                       \
    int64_t widen_##TYPE(float *restrict out, const TYPE *restrict stored, int64_t n) {                      \
        uint32_t bad = 0;                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            float value = wide_##TYPE(stored[i]);                                                            \
            out[i] = value;                                                                                  \
            bad |= is_bad(value);                                                                            \
        }                                                                                                    \
        return !bad;                                                                                         \
    }                                                                                                        \
                                                                                                             \
    /* out = stored - base */                                                                                \
    int64_t subtract_##TYPE(float *restrict out, const TYPE *restrict stored, const float *restrict base,    \
                            int64_t n) {                                                                     \
        uint32_t bad = 0;                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            float value = wide_##TYPE(stored[i]) - base[i];                                                  \
            out[i] = value;                                                                                  \
            bad |= is_bad(value);                                                                            \
        }                                                                                                    \
        return !bad;                                                                                         \
    }                                                                                                        \
                                                                                                             \
    /* total += weight * stored, rounded once */                                                             \
    int64_t add_##TYPE(float *restrict total, const TYPE *restrict stored, float weight, int64_t n) {        \
        for (int64_t i = 0; i < n; i++) total[i] = __builtin_fmaf(wide_##TYPE(stored[i]), weight, total[i]); \
        return 1;                                                                                            \
    }

FOR_STORED(bfloat16)
FOR_STORED(float)

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
