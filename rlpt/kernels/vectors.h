// What the compiled kernels of this folder share: sixteen float32 at a time, e^x, a small matrix product, the
// rotary turn.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>

namespace {

constexpr int LANES = 16;
constexpr int PANEL = 2 * LANES;
#if defined(__AVX512F__)
constexpr int MOST_ROWS = 12;  // that one product holds in registers, twice, beside two vectors of weights
#else
constexpr int MOST_ROWS = 3;
#endif

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Bits __attribute__((vector_size(LANES * sizeof(int32_t))));

inline Lanes load(const float *from) {
    Lanes value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float *to, Lanes value, int64_t count = LANES) {
    std::memcpy(to, &value, count * sizeof(float));
}

// The first `count` of sixteen, 0 in place of the rest.
inline Lanes load(const float *from, int64_t count) {
    if (count == LANES) return load(from);
    Lanes value = {};
    std::memcpy(&value, from, count * sizeof(float));
    return value;
}

// The first `count` of `value`, `other` in place of the rest.
inline Lanes first(Lanes value, int64_t count, float other) {
    const Bits lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < Bits{} + int32_t(count) ? value : Lanes{} + other;
}

inline float sum(Lanes value) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += value[i];
    return total;
}

// work(column, how many of sixteen are there) over `width` columns.
template <class Work>
inline void for_each_lanes(int64_t width, Work work) {
    int64_t c = 0;
    for (; c + LANES <= width; c += LANES) work(c, LANES);
    if (c < width) work(c, width - c);
}

// e^x to 2 units in the last place, of x from -87 to 88. Range reduction and polynomial: Cephes' expf.
inline Lanes exponential_within(Lanes x) {
    const Lanes shift = Lanes{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    const Lanes whole = (x * 1.44269504088896341f + shift) - shift;
    Lanes rest = x - whole * 0.693359375f;
    rest = rest + whole * 2.12194440e-4f;
    Lanes power = Lanes{} + 1.9875691500e-4f;
    power = power * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    const Bits exponent = (__builtin_convertvector(whole, Bits) + 127) << 23;
    Lanes scale;
    std::memcpy(&scale, &exponent, sizeof scale);
    return power * scale;
}

// The same; x below -87 counts as -87, and above 88 as 88.
inline Lanes exponential(Lanes x) {
    const Lanes least = Lanes{} - 87.0f, most = Lanes{} + 88.0f;
    x = x < least ? least : x;
    return exponential_within(x > most ? most : x);
}

// ROWS rows (the k-th value of row r lies at rows[r * stride + k * step]) times a panel [depth, 32]:
// finish(row, its first 16 outputs, its last 16).
template <int ROWS, class Finish>
void product(const float *rows, int64_t stride, int64_t step, const float *panel, int64_t depth, Finish finish) {
    Lanes low[ROWS] = {}, high[ROWS] = {};
    for (int64_t k = 0; k < depth; k++) {
        const Lanes first = load(panel + k * PANEL), second = load(panel + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const float value = rows[r * stride + k * step];
            low[r] += value * first;
            high[r] += value * second;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) finish(r, low[r], high[r]);
}

// `product` of `count` rows, at most MOST_ROWS.
template <int ROWS = MOST_ROWS, class Finish>
void product_of(int count, const float *rows, int64_t stride, int64_t step, const float *panel, int64_t depth,
                Finish finish) {
    if (count == ROWS) {
        product<ROWS>(rows, stride, step, panel, depth, finish);
    } else if constexpr (ROWS > 1) {
        product_of<ROWS - 1>(count, rows, stride, step, panel, depth, finish);
    }
}

// x [2 half], its halves as pairs, turned by the angles of cos and sin [half] (sign -1: back) and scaled; `out` may be
// x.
inline void turn(const float *x, const float *cos, const float *sin, int64_t half, float *out, float scale = 1.0f,
                 float sign = 1.0f) {
    for (int64_t c = 0; c < half; c++) {
        const float first = x[c] * scale, second = x[half + c] * scale;
        out[c] = first * cos[c] - sign * second * sin[c];
        out[half + c] = second * cos[c] + sign * first * sin[c];
    }
}

}  // namespace
