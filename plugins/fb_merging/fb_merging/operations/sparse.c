/* Trimming and electing in one pass each, over fp32 task vectors. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 1024
#define FEW 128

static inline int32_t magnitude_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

/* out = delta where its magnitude is at least `threshold`, else 0 */
int64_t keep_largest(float *restrict out, const float *restrict delta, float threshold, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = fabsf(delta[i]) >= threshold ? delta[i] : 0.0f;
    return n;
}

/* Magnitudes of `start <= bits < stop` go to `inside`; above[0] counts those beyond. Gives how many there are.
   Few are, so blocks are counted first, which is fast, and most are not looked at again. */
int64_t count_inside(int32_t *restrict inside, int64_t *restrict above, const float *restrict delta,
                     int64_t start, int64_t stop, int64_t n) {
    const int32_t first = (int32_t)start, last = (int32_t)(stop - 1);
    int64_t found = 0, beyond = 0;
    for (int64_t from = 0; from < n; from += FEW) {
        const int64_t width = n - from < FEW ? n - from : FEW;
        int32_t high = 0, wanted = 0;
        for (int64_t i = 0; i < width; i++) {
            const int32_t bits = magnitude_bits(delta[from + i]);
            high += bits > last;
            wanted += bits >= first;
        }
        beyond += high;
        if (wanted == high) continue;
        for (int64_t i = 0; i < width; i++) {
            const int32_t bits = magnitude_bits(delta[from + i]);
            inside[found] = bits;
            found += bits >= first && bits <= last;
        }
    }
    above[0] = beyond;
    return found;
}

/* The sign of the sum of all: -1, 0 or 1 */
int64_t elect_sign(float *restrict out, const float *const *deltas, int64_t models, int64_t n) {
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t width = n - from < BLOCK ? n - from : BLOCK;
        float *restrict total = out + from;
        memcpy(total, deltas[0] + from, width * sizeof(float));
        for (int64_t model = 1; model < models; model++) {
            const float *restrict delta = deltas[model] + from;
            for (int64_t i = 0; i < width; i++) total[i] += delta[i];
        }
        for (int64_t i = 0; i < width; i++) total[i] = (float)((total[i] > 0.0f) - (total[i] < 0.0f));
    }
    return n;
}

/* The mean of those updates that have the elected sign; no sum of weights is below `smallest`. */
int64_t disjoint_mean(float *restrict out, const float *const *deltas, const float *restrict sign,
                      const float *restrict weights, int64_t models, float smallest, int64_t n) {
    float total[BLOCK], count[BLOCK];
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t width = n - from < BLOCK ? n - from : BLOCK;
        memset(total, 0, sizeof total);
        memset(count, 0, sizeof count);
        for (int64_t model = 0; model < models; model++) {
            const float *restrict delta = deltas[model] + from;
            const float weight = weights[model];
            for (int64_t i = 0; i < width; i++) {
                const float product = delta[i] * sign[from + i];
                const float agrees = (float)(product > 0.0f);
                total[i] += product * agrees;
                count[i] += weight * agrees;
            }
        }
        for (int64_t i = 0; i < width; i++)
            out[from + i] = total[i] / (count[i] > smallest ? count[i] : smallest) * sign[from + i];
    }
    return n;
}
