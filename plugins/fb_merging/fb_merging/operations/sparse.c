/* Trimming and electing in one pass each, over task vectors that are never written to memory. */

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdlib.h>

#include "stored.h"

#define LANES 16 /* entries that are looked at together */

enum { MEAN, SUM, MAX, ALL };

/* out = delta where its magnitude is at least `threshold`, else 0 */
int64_t keep_largest(float *restrict out, const float *restrict delta, float threshold, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = fabsf(delta[i]) >= threshold ? delta[i] : 0.0f;
    return n;
}

/* How entries of one model's task vector are dropped at random. */
typedef struct {
    const float *uniform;       /* one number an entry, from [0, 1) */
    const float *probabilities; /* to be kept, one an entry; NULL: `probability` for all */
    float probability;
    int64_t rescale; /* whether what is kept is divided by its probability */
} drop;

/* out = out where `uniform` is below its probability, else 0, divided by it if so wished; no 0 is negative */
static inline void drop_entries(float *restrict out, const drop *d, int64_t from, int64_t width) {
    const float *restrict uniform = d->uniform + from;
    if (d->probabilities) {
        const float *restrict probability = d->probabilities + from;
        for (int64_t i = 0; i < width; i++)
            out[i] = (uniform[i] < probability[i] ? out[i] + 0.0f : 0.0f) / (d->rescale ? probability[i] : 1.0f);
    } else {
        const float probability = d->probability, divisor = d->rescale ? probability : 1.0f;
        for (int64_t i = 0; i < width; i++) out[i] = (uniform[i] < probability ? out[i] + 0.0f : 0.0f) / divisor;
    }
}

/* out = what `drops`, NULL or one a model, leaves of model - base. Gives whether anything was NaN or Inf. */
static inline uint32_t load_kept(float *restrict out, const pieces *p, const drop *drops, int64_t model,
                                 const float *restrict base, int64_t from, int64_t width) {
    const uint32_t bad = load_delta(out, p, model, base, from, width);
    if (drops) drop_entries(out, drops + model, from, width);
    return bad;
}

/* One model's task vector without what is dropped. Gives 0 if anything was NaN or Inf, else 1. */
int64_t drop_at_random(float *restrict out, const pieces *p, const drop *drops, int64_t model) {
    float base[BLOCK];
    uint32_t bad = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        load_base(base, p, from, width);
        bad |= load_kept(out + from, p, drops, model, base, from, width);
    }
    return !bad;
}

static inline int32_t magnitude_bits(float value) { return (int32_t)(bits_of(value) & 0x7fffffffu); }

/* Magnitudes with `first <= bits <= last` go to `inside`, which has room for LANES more than `width`. Gives how
   many there are, and adds the number of those above to `beyond`. */
#ifdef __AVX512F__
static inline int64_t sift(int32_t *restrict inside, int64_t *restrict beyond, const float *restrict delta,
                           int32_t first, int32_t last, int64_t width) {
    const __m512i low = _mm512_set1_epi32(first), high = _mm512_set1_epi32(last);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    int64_t found = 0, above = 0;
    for (int64_t i = 0; i < width; i += LANES) {
        const __mmask16 there = width - i < LANES ? (__mmask16)((1u << (width - i)) - 1) : 0xffff;
        const __m512i bits = _mm512_and_si512(_mm512_maskz_loadu_epi32(there, delta + i), magnitude);
        const __mmask16 over = _mm512_mask_cmpgt_epi32_mask(there, bits, high);
        const __mmask16 in = _mm512_mask_cmpge_epi32_mask(there & ~over, bits, low);
        _mm512_storeu_si512(inside + found, _mm512_maskz_compress_epi32(in, bits));
        found += __builtin_popcount(in);
        above += __builtin_popcount(over);
    }
    *beyond += above;
    return found;
}
#else
static inline int64_t sift(int32_t *restrict inside, int64_t *restrict beyond, const float *restrict delta,
                           int32_t first, int32_t last, int64_t width) {
    int64_t found = 0, above = 0;
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t end = width - i < LANES ? width : i + LANES;
        int32_t over = 0, high = 0;
        for (int64_t j = i; j < end; j++) {
            const int32_t bits = magnitude_bits(delta[j]);
            over += bits >= first;
            high += bits > last;
        }
        above += high;
        if (over == high) continue;
        for (int64_t j = i; j < end; j++) {
            const int32_t bits = magnitude_bits(delta[j]);
            inside[found] = bits;
            found += bits >= first && bits <= last;
        }
    }
    *beyond += above;
    return found;
}
#endif

/* For entries `first` to `last` of one model's task vector, in rows of `columns`: the bits of their magnitudes, and
   numbers that nearly order like them: the leading bits, and the place in the row in the last `place_bits`. Gives
   0 if anything is NaN or Inf, else 1. */
int64_t rank_keys(uint32_t *restrict keys, int32_t *restrict bits, const pieces *p, int64_t model, int64_t columns,
                  int64_t place_bits, int64_t first, int64_t last) {
    float base[BLOCK], delta[BLOCK];
    uint32_t bad = 0;
    for (int64_t row = first; row < last; row += columns)
        for (int64_t place = 0; place < columns; place += BLOCK) {
            const int64_t width = block_width(columns, place);
            load_base(base, p, row + place, width);
            bad |= load_delta(delta, p, model, base, row + place, width);
            for (int64_t i = 0; i < width; i++) {
                bits[i] = magnitude_bits(delta[i]);
                keys[i] = (uint32_t)bits[i] << 1 >> place_bits << place_bits | (uint32_t)(place + i);
            }
            bits += width, keys += width;
        }
    return !bad;
}

static int ascending(const void *one, const void *other) {
    const int64_t left = *(const int64_t *)one, right = *(const int64_t *)other;
    return (left > right) - (left < right);
}

/* Puts the sorted keys that share their leading bits with key number `i` into the order of the whole magnitudes,
   equal ones by their place. Gives the number of the first key after them. */
static int64_t settle(uint32_t *restrict keys, const int32_t *restrict bits, uint32_t places, int64_t columns,
                      int64_t i, int64_t *restrict scratch) {
    int64_t start = i, stop = i + 1;
    while (start > 0 && !((keys[start - 1] ^ keys[i]) & ~places)) start--;
    while (stop < columns && !((keys[stop] ^ keys[i]) & ~places)) stop++;
    for (int64_t j = start; j < stop; j++)
        scratch[j] = (int64_t)bits[keys[j] & places] << 32 | (keys[j] & places);
    qsort(scratch + start, stop - start, sizeof *scratch, ascending);
    for (int64_t j = start; j < stop; j++) keys[j] = (keys[i] & ~places) | (uint32_t)scratch[j];
    return stop;
}

/* Gives the entry of rank r of each row number r, by keys that are sorted. `scratch` has room for a row. */
int64_t by_rank(float *restrict out, uint32_t *restrict keys, const int32_t *restrict bits,
                const float *restrict numbers, int64_t rows, int64_t columns, int64_t place_bits,
                int64_t *restrict scratch) {
    const uint32_t places = (1u << place_bits) - 1;
    for (int64_t row = 0; row < rows; row++, out += columns, keys += columns, bits += columns) {
        for (int64_t rank = 1; rank < columns; rank++) {
            const int32_t before = bits[keys[rank - 1] & places];
            /* One condition that hardly ever holds, so that it is foreseen. */
            if (!((keys[rank] ^ keys[rank - 1]) & ~places) & (bits[keys[rank] & places] < before))
                rank = settle(keys, bits, places, columns, rank, scratch);
        }
        for (int64_t rank = 0; rank < columns; rank++) out[keys[rank] & places] = numbers[rank];
    }
    return rows;
}

/* Adds up, in 2048 counters, how many magnitudes of one model's task vector have each leading part: the exponent
   and three more bits. Gives 0 if anything is NaN or Inf, else 1. */
int64_t count_leading(int64_t *restrict counts, const pieces *p, const drop *drops, int64_t model) {
    float base[BLOCK], delta[BLOCK];
    int32_t own[4][2048] = {{0}}; /* neighbours are alike, and a counter waits for itself */
    uint32_t bad = 0;
    int64_t since = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        load_base(base, p, from, width);
        bad |= load_kept(delta, p, drops, model, base, from, width);
        for (int64_t i = width; i < BLOCK; i++) delta[i] = 0.0f;
        for (int64_t i = 0; i < BLOCK; i += 4) {
            own[0][magnitude_bits(delta[i]) >> 20]++;
            own[1][magnitude_bits(delta[i + 1]) >> 20]++;
            own[2][magnitude_bits(delta[i + 2]) >> 20]++;
            own[3][magnitude_bits(delta[i + 3]) >> 20]++;
        }
        counts[0] -= BLOCK - width;
        since += width;
        if (since > 1 << 30 || from + width == p->entries) {
            for (int64_t part = 0; part < 4; part++)
                for (int64_t i = 0; i < 2048; i++) counts[i] += own[part][i];
            memset(own, 0, sizeof own);
            since = 0;
        }
    }
    return !bad;
}

/* Magnitudes of the first `entries` of each model's task vector, as bits, one model after the other. Gives 0 if
   anything is NaN or Inf, else 1. */
int64_t read_magnitudes(int32_t *restrict out, const pieces *p, const drop *drops, int64_t entries) {
    float base[BLOCK], delta[BLOCK];
    uint32_t bad = 0;
    for (int64_t from = 0; from < entries; from += BLOCK) {
        const int64_t width = block_width(entries, from);
        load_base(base, p, from, width);
        for (int64_t model = 0; model < p->models; model++) {
            bad |= load_kept(delta, p, drops, model, base, from, width);
            for (int64_t i = 0; i < width; i++) out[model * entries + from + i] = magnitude_bits(delta[i]);
        }
    }
    return !bad;
}

/* Magnitudes of one model's task vector with `start <= bits < stop` go to `inside`, which has room for LANES more.
   Gives counts of those, and of those beyond; 0 if anything is NaN or Inf, else 1. */
int64_t count_inside(int32_t *restrict inside, int64_t *restrict counts, const pieces *p, const drop *drops,
                     int64_t model, int64_t start, int64_t stop) {
    float base[BLOCK], delta[BLOCK];
    int64_t found = 0, beyond = 0;
    uint32_t bad = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        load_base(base, p, from, width);
        bad |= load_kept(delta, p, drops, model, base, from, width);
        found += sift(inside + found, &beyond, delta, (int32_t)start, (int32_t)(stop - 1), width);
    }
    counts[0] = found;
    counts[1] = beyond;
    return !bad;
}

static inline void add_to_base(float *restrict total, const pieces *p, const float *restrict base, float scale,
                               int64_t width) {
    if (p->base)
        for (int64_t i = 0; i < width; i++) total[i] = __builtin_fmaf(total[i], scale, base[i]);
}

/* Drop entries at random, trim each task vector to magnitudes from its threshold to its ceiling, multiply it with
   its factor, elect the sign of the sum, and merge what has it: the mean (no sum of weights is below `number`), the
   sum or the maximum. Or elect nothing: the sum of ALL over `number`. With a base, out = base + scale * that, else
   just that. `scratch` has room for a block of each model. Gives 0 if anything is NaN or Inf, else 1. */
int64_t trim_and_elect(float *restrict out, const pieces *p, const drop *drops,
                       const float *restrict thresholds, const float *restrict ceilings,
                       const float *restrict factors, const float *restrict weights, int64_t how, float number,
                       float scale, float *restrict scratch) {
    float base[BLOCK], sign[BLOCK], count[BLOCK];
    uint32_t bad = 0;
    for (int64_t from = 0; from < p->entries; from += BLOCK) {
        const int64_t width = block_width(p->entries, from);
        float *restrict total = out + from;
        load_base(base, p, from, width);
        for (int64_t model = 0; model < p->models; model++) {
            float *restrict delta = scratch + model * BLOCK;
            const float factor = factors[model];
            const float low = thresholds[model], high = ceilings[model];
            bad |= load_kept(delta, p, drops, model, base, from, width);
            for (int64_t i = 0; i < width; i++) {
                const float magnitude = fabsf(delta[i]);
                delta[i] = (magnitude >= low && magnitude <= high ? delta[i] : 0.0f) * factor;
                sign[i] = model ? sign[i] + delta[i] : delta[i];
            }
        }
        if (how == ALL) {
            for (int64_t i = 0; i < width; i++) total[i] = sign[i] / number;
            add_to_base(total, p, base, scale, width);
            continue;
        }
        for (int64_t i = 0; i < width; i++) sign[i] = (float)((sign[i] > 0.0f) - (sign[i] < 0.0f));
        memset(total, 0, width * sizeof(float));
        memset(count, 0, sizeof count);
        for (int64_t model = 0; model < p->models; model++) {
            const float *restrict delta = scratch + model * BLOCK;
            const float weight = weights[model];
            if (how == MAX)
                for (int64_t i = 0; i < width; i++) {
                    const float product = delta[i] * sign[i];
                    total[i] = product > total[i] ? product : total[i];
                }
            else
                for (int64_t i = 0; i < width; i++) {
                    const float product = delta[i] * sign[i];
                    total[i] += product > 0.0f ? product : 0.0f;
                    count[i] += product > 0.0f ? weight : 0.0f;
                }
        }
        if (how == MEAN)
            for (int64_t i = 0; i < width; i++) total[i] /= count[i] > number ? count[i] : number;
        for (int64_t i = 0; i < width; i++) total[i] *= sign[i];
        add_to_base(total, p, base, scale, width);
    }
    return !bad;
}
