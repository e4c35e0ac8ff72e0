// Passes over the logits of an output layer, on a CPU in float32: each row's statistics, and the gradient in its logits.
//
// rlpt/kernels/compiled_head.py compiles this and calls it; the matrix products before and after are torch's.

#include "vectors.h"

#include <algorithm>

extern "C" {

struct Logits {
    int64_t rows, columns, num_chosen, sets, set_stride, threads;
    const uint8_t *illegal;      // [sets, set_stride], not 0 where a set leaves a column out; null: there are no sets
    const int64_t *legal_index;  // [rows] into the sets
    const int64_t *column;       // [rows, num_chosen] of each chosen id
    const uint8_t *owned;        // [rows, num_chosen], 0 where another shard holds the id
    float *values;               // [rows, columns]
};
}

namespace {

constexpr int64_t BLOCK = 1024;     // columns whose sums are kept in float32 lanes
constexpr int64_t SMALL = 1 << 15;  // logits that are not worth a second thread
constexpr float LEAST = -87.0f;     // e^x counts as 0 from here on down

typedef uint8_t Bytes __attribute__((vector_size(LANES)));

// `count` logits of a row; -inf in place of those that its set leaves out and of missing ones.
template <bool LEGAL>
inline Lanes logits_at(const float *row, const uint8_t *illegal, int64_t j, int64_t count) {
    const Lanes nothing = Lanes{} - INFINITY;
    Lanes value = nothing;
    std::memcpy(&value, row + j, count * sizeof(float));
    if constexpr (LEGAL) {
        Bytes out{};
        std::memcpy(&out, illegal + j, count);
        value = __builtin_convertvector(out, Bits) != 0 ? nothing : value;
    }
    return value;
}

// e^x, exactly 0 from LEAST on down, where x becomes LEAST; NaN stays.
inline Lanes exponential_or_zero(Lanes &x) {
    const Lanes least = Lanes{} + LEAST;
    x = x < least ? least : x;
    return x <= least ? Lanes{} : exponential_within(x);
}

double sum_of(Lanes lanes) {
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

// found [3]: the maximum m, sum e^(l - m) and sum e^(l - m) (l - m).
template <bool LEGAL>
void reduce_row(const float *row, const uint8_t *illegal, int64_t columns, float *found) {
    Lanes most = Lanes{} - INFINITY;
    for_each_lanes(columns, [&](int64_t j, int64_t count) {
        const Lanes value = logits_at<LEGAL>(row, illegal, j, count);
        most = value > most ? value : most;
    });
    float peak = -INFINITY;
    for (int i = 0; i < LANES; i++) peak = most[i] > peak ? most[i] : peak;
    const float shift = peak == -INFINITY ? 0.0f : peak;
    double total = 0, first = 0;
    for (int64_t begin = 0; begin < columns; begin += BLOCK) {
        Lanes sum{}, weighted{};
        for_each_lanes(std::min(BLOCK, columns - begin), [&](int64_t j, int64_t count) {
            Lanes shifted = logits_at<LEGAL>(row, illegal, begin + j, count) - shift;
            const Lanes power = exponential_or_zero(shifted);
            sum += power;
            weighted += power * shifted;
        });
        total += sum_of(sum);
        first += sum_of(weighted);
    }
    found[0] = peak;
    found[1] = float(total);
    found[2] = float(first);
}

// The logits become e^(l - log_sum) (bend (l - log_sum) + level).
template <bool LEGAL>
void turn_row(float *row, const uint8_t *illegal, int64_t columns, float log_sum, float bend, float level) {
    for_each_lanes(columns, [&](int64_t j, int64_t count) {
        Lanes logprob = logits_at<LEGAL>(row, illegal, j, count) - log_sum;
        const Lanes probability = exponential_or_zero(logprob);
        store(row + j, probability * (logprob * bend + level), count);
    });
}

template <class Each>
void for_rows(const Logits &logits, Each each) {
#pragma omp parallel for schedule(static) num_threads(int(logits.threads)) if (logits.rows * logits.columns > SMALL)
    for (int64_t r = 0; r < logits.rows; r++) {
        const uint8_t *set = logits.illegal;
        if (set != nullptr) set += logits.legal_index[r] * logits.set_stride;
        each(r, logits.values + r * logits.columns, set);
    }
}

}  // namespace

// statistics [rows, 3 + num_chosen] as `Head.statistics` defines them; the logits stay as they are. Returns 1 where an
// index is outside of the sets.
extern "C" int rlpt_head_reduce(const Logits *logits, float *statistics) {
    const int64_t chosen = logits->num_chosen;
    for (int64_t r = 0; logits->illegal != nullptr && r < logits->rows; r++)
        if (logits->legal_index[r] < 0 || logits->legal_index[r] >= logits->sets) return 1;
    for_rows(*logits, [&](int64_t r, const float *row, const uint8_t *illegal) {
        float *found = statistics + r * (3 + chosen);
        illegal != nullptr ? reduce_row<true>(row, illegal, logits->columns, found)
                           : reduce_row<false>(row, illegal, logits->columns, found);
        for (int64_t k = 0; k < chosen; k++) {
            const int64_t c = logits->column[r * chosen + k];
            const bool owned = logits->owned[r * chosen + k] && c < logits->columns;
            found[3 + k] = !owned ? 0.0f : illegal != nullptr && illegal[c] ? -INFINITY : row[c];
        }
    });
    return 0;
}

// The logits become the loss's gradient in them, times `scale`. log_sum, entropy and bend (the slope of the entropy)
// [rows], slopes [rows, num_chosen] of the chosen log-probs.
extern "C" int rlpt_head_turn(const Logits *logits, const float *log_sum, const float *entropy, const float *slopes,
                              const float *bend, float scale) {
    const int64_t chosen = logits->num_chosen;
    for_rows(*logits, [&](int64_t r, float *row, const uint8_t *illegal) {
        float level = bend[r] * entropy[r];
        for (int64_t k = 0; k < chosen; k++) level += slopes[r * chosen + k];
        illegal != nullptr
            ? turn_row<true>(row, illegal, logits->columns, log_sum[r], -scale * bend[r], -scale * level)
            : turn_row<false>(row, illegal, logits->columns, log_sum[r], -scale * bend[r], -scale * level);
        for (int64_t k = 0; k < chosen; k++) {
            const int64_t c = logits->column[r * chosen + k];
            if (logits->owned[r * chosen + k] && c < logits->columns) row[c] += scale * slopes[r * chosen + k];
        }
    });
    return 0;
}
