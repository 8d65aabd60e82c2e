/* The uniform numbers that torch's generators draw one by one, many at a time. */

#include <stdint.h>

#define N 624
#define M 397

static inline uint32_t twisted(uint32_t high, uint32_t low, uint32_t other) {
    const uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);
    return other ^ (mixed >> 1) ^ (-(mixed & 1u) & 0x9908b0dfu);
}

static void twist(uint32_t *restrict state) {
    for (int i = 0; i < N - M; i++) state[i] = twisted(state[i], state[i + 1], state[i + M]);
    for (int i = N - M; i < 2 * (N - M); i++) state[i] = twisted(state[i], state[i + 1], state[i + M - N]);
    for (int i = 2 * (N - M); i < N - 1; i++) state[i] = twisted(state[i], state[i + 1], state[i + M - N]);
    state[N - 1] = twisted(state[N - 1], state[0], state[M - 1]);
}

/* Numbers `start` to `stop` of the Mersenne Twister (Matsumoto and Nishimura 1998) seeded with `seed`, 24 bits of
   each, from [0, 1). */
int64_t uniform_numbers(float *restrict out, int64_t seed, int64_t start, int64_t stop) {
    uint32_t state[N];
    state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    for (int64_t drawn = 0; drawn < stop; drawn += N) {
        twist(state);
        const int64_t first = start > drawn ? start - drawn : 0, last = stop - drawn < N ? stop - drawn : N;
        for (int64_t i = first; i < last; i++) {
            uint32_t number = state[i];
            number ^= number >> 11;
            number ^= (number << 7) & 0x9d2c5680u;
            number ^= (number << 15) & 0xefc60000u;
            number ^= number >> 18;
            out[drawn + i - start] = (float)(number & 0xffffffu) * 0x1p-24f;
        }
    }
    return stop - start;
}
