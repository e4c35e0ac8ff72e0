// New tokens through all layers of a decoder that keeps keys and values, on a CPU in float32.
//
// rlpt/kernels/compiled_decode.py compiles this, lays the weights out for it and calls it. One call is one parallel
// region: per-operator overhead, which is most of a small model's decode step, is gone. Every row's sums are taken in
// the same order whatever rows stand beside it, so a token does not depend on the batch that it was drawn in.
//
// Weights [out, in] come as panels [out / 32, in, 32]: 32 outputs side by side.

#include "vectors.h"

#include <vector>

namespace {

// rows [count, depth] times panels; all threads share the work and wait for each other at the end.
// finish(row, panel, its first 16 outputs, its last 16).
template <class Finish>
void multiply(const float *rows, int64_t count, int64_t depth, const float *panels, int64_t num_panels, Finish finish) {
    const int64_t blocks = (count + MOST_ROWS - 1) / MOST_ROWS;
#pragma omp for collapse(2) schedule(static)
    for (int64_t p = 0; p < num_panels; p++) {
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t begin = count * b / blocks, end = count * (b + 1) / blocks;
            product_of(int(end - begin), rows + begin * depth, depth, 1, panels + p * depth * PANEL, depth,
                       [&](int64_t r, Lanes low, Lanes high) { finish(begin + r, p, low, high); });
        }
    }
}

struct Put {  // into out [count, width]
    float *out;
    int64_t width;

    void operator()(int64_t row, int64_t panel, Lanes low, Lanes high) const {
        const int64_t column = panel * PANEL;
        float *to = out + row * width + column;
        if (column + PANEL <= width) {
            store(to, low);
            store(to + LANES, high);
        } else {
            const int64_t left = width - column;
            store(to, low, left < LANES ? left : LANES);
            if (left > LANES) store(to + LANES, high, left - LANES);
        }
    }
};

struct Add {  // to out [count, width]
    float *out;
    int64_t width;

    void operator()(int64_t row, int64_t panel, Lanes low, Lanes high) const {
        float sums[PANEL];
        store(sums, low);
        store(sums + LANES, high);
        const int64_t column = panel * PANEL, left = width - column;
        float *to = out + row * width + column;
        for (int64_t c = 0; c < (left < PANEL ? left : PANEL); c++) to[c] += sums[c];
    }
};

struct Gate {  // silu(gate) * up into out [count, width]; a panel holds 16 gates and their 16 ups
    float *out;
    int64_t width;

    void operator()(int64_t row, int64_t panel, Lanes gate, Lanes up) const {
        const int64_t column = panel * LANES, left = width - column;
        store(out + row * width + column, gate / (1.0f + exponential(-gate)) * up, left < LANES ? left : LANES);
    }
};

}  // namespace

extern "C" {

struct Layer {
    const float *input_norm, *qkv, *proj, *mlp_norm, *gate_up, *down;
};

struct Model {
    int64_t num_layers, hidden, groups, per_group, head, ffn, vocabulary;  // of this tensor rank
    double epsilon;
    const Layer *layers;
    const float *final_norm, *output;
};

struct Pass {
    int64_t count;             // n tokens
    const int64_t *slot;       // [n]
    const int64_t *position;   // [n], the column of the slot where the token's key and value go
    const float *cos, *sin;    // [n, head / 2]
    float *hidden;             // [n, hidden], the residual stream: embeddings at first
    float *cache;              // [layers, 2, slots, groups, capacity, head]
    int64_t slots, capacity;
    int64_t wanted_count;      // m
    const int64_t *wanted;     // [m] of the tokens
    float *normed;             // [m, hidden] after the final norm
    float *logits;             // [m, vocabulary]
    float *work;               // [n * (hidden + heads * head + the larger of ffn and qkv's outputs)]
    float *partial;            // [n, hidden]: what `reduce` sums over tensor ranks
    int (*reduce)(void);       // null on one rank; not 0: failed
    int64_t threads;
};
}

namespace {

// `pending`, where there is one, is added to the rows first.
void normalize(float *rows, const float *pending, const float *weight, double epsilon, int64_t count, int64_t width,
               float *out) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; r++) {
        float *x = rows + r * width, *y = out + r * width;
        if (pending != nullptr) {
            const float *more = pending + r * width;
            for (int64_t c = 0; c < width; c++) x[c] += more[c];
        }
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t c = 0; c < width; c++) squares += x[c] * x[c];
        const float scale = 1.0f / std::sqrt(squares / float(width) + float(epsilon));
        for (int64_t c = 0; c < width; c++) y[c] = x[c] * scale * weight[c];
    }
}

// qkv [n, groups, per_group + 2, head]: queries and keys are turned, keys and values go into the cache.
void remember(const Model &model, const Pass &pass, float *qkv, float *keys, float *values) {
    const int64_t size = model.head, each = model.per_group;
#pragma omp for collapse(2) schedule(static)
    for (int64_t t = 0; t < pass.count; t++) {
        for (int64_t g = 0; g < model.groups; g++) {
            float *own = qkv + (t * model.groups + g) * (each + 2) * size;
            for (int64_t h = 0; h <= each; h++)
                turn(own + h * size, pass.cos + t * size / 2, pass.sin + t * size / 2, size / 2, own + h * size);
            const int64_t at = ((pass.slot[t] * model.groups + g) * pass.capacity + pass.position[t]) * size;
            std::memcpy(keys + at, own + each * size, size * sizeof(float));
            std::memcpy(values + at, own + (each + 1) * size, size * sizeof(float));
        }
    }
}

// One query's scores of `length` keys, as weights that add up to the returned number.
float weigh(const float *query, const float *keys, int64_t length, int64_t size, float scale, float *weights) {
    float most = -INFINITY;
    for (int64_t j = 0; j < length; j++) {
        const float *key = keys + j * size;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < size; c++) sum += query[c] * key[c];
        weights[j] = sum * scale;
        most = weights[j] > most ? weights[j] : most;
    }
    float total = 0;
    for (int64_t j = 0; j < length; j += LANES) {
        store(weights + j, exponential(load(weights + j) - most));
        const int64_t end = length - j < LANES ? length : j + LANES;
        for (int64_t i = j; i < end; i++) total += weights[i];
    }
    return total;
}

void attend(const Model &model, const Pass &pass, const float *qkv, const float *keys, const float *values,
            float *out) {
    const int64_t size = model.head, each = model.per_group;
    const float scale = float(1.0 / std::sqrt(double(size)));
    static thread_local std::vector<float> weights;
    weights.resize(pass.capacity + LANES);
#pragma omp for collapse(2) schedule(dynamic, 4)
    for (int64_t t = 0; t < pass.count; t++) {
        for (int64_t g = 0; g < model.groups; g++) {
            const int64_t at = (pass.slot[t] * model.groups + g) * pass.capacity * size, length = pass.position[t] + 1;
            for (int64_t h = 0; h < each; h++) {
                const float *query = qkv + ((t * model.groups + g) * (each + 2) + h) * size;
                float *sum = out + ((t * model.groups + g) * each + h) * size;
                const float total = weigh(query, keys + at, length, size, scale, weights.data());
                std::memset(sum, 0, size * sizeof(float));
                for (int64_t j = 0; j < length; j++) {
                    const float weight = weights[j] / total, *value = values + at + j * size;
#pragma omp simd
                    for (int64_t c = 0; c < size; c++) sum[c] += weight * value[c];
                }
            }
        }
    }
}

// Sums `partial` over tensor ranks; all threads learn whether it failed.
bool reduced(const Pass &pass, int &failed) {
#pragma omp master
    failed = pass.reduce();
#pragma omp barrier
    return failed == 0;
}

void run(const Model &model, const Pass &pass, int &failed) {
    const int64_t n = pass.count, heads = model.groups * model.per_group;
    const int64_t qkv_width = (heads + 2 * model.groups) * model.head, att_width = heads * model.head;
    float *normed = pass.work, *attended = normed + n * model.hidden, *wide = attended + n * att_width;
    const int64_t hidden_panels = (model.hidden + PANEL - 1) / PANEL;
    const int64_t cache_size = pass.slots * model.groups * pass.capacity * model.head;
    const float *pending = nullptr;
    for (int64_t l = 0; l < model.num_layers; l++) {
        const Layer &layer = model.layers[l];
        float *keys = pass.cache + 2 * l * cache_size, *values = keys + cache_size;
        normalize(pass.hidden, pending, layer.input_norm, model.epsilon, n, model.hidden, normed);
        multiply(normed, n, model.hidden, layer.qkv, (qkv_width + PANEL - 1) / PANEL, Put{wide, qkv_width});
        remember(model, pass, wide, keys, values);
        attend(model, pass, wide, keys, values, attended);
        const bool alone = pass.reduce == nullptr;
        if (alone) {
            multiply(attended, n, att_width, layer.proj, hidden_panels, Add{pass.hidden, model.hidden});
        } else {
            multiply(attended, n, att_width, layer.proj, hidden_panels, Put{pass.partial, model.hidden});
            if (!reduced(pass, failed)) return;
            pending = pass.partial;
        }
        normalize(pass.hidden, pending, layer.mlp_norm, model.epsilon, n, model.hidden, normed);
        multiply(normed, n, model.hidden, layer.gate_up, (model.ffn + LANES - 1) / LANES, Gate{wide, model.ffn});
        if (alone) {
            multiply(wide, n, model.ffn, layer.down, hidden_panels, Add{pass.hidden, model.hidden});
        } else {
            multiply(wide, n, model.ffn, layer.down, hidden_panels, Put{pass.partial, model.hidden});
            if (!reduced(pass, failed)) return;
        }
    }
    const int64_t m = pass.wanted_count;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < m; i++) {
        const int64_t from = pass.wanted[i] * model.hidden;
        for (int64_t c = 0; c < model.hidden; c++)
            normed[i * model.hidden + c] = pass.hidden[from + c] + (pending == nullptr ? 0.0f : pending[from + c]);
    }
    normalize(normed, nullptr, model.final_norm, model.epsilon, m, model.hidden, pass.normed);
    multiply(pass.normed, m, model.hidden, model.output, (model.vocabulary + PANEL - 1) / PANEL,
             Put{pass.logits, model.vocabulary});
}

}  // namespace

extern "C" int rlpt_decode(const Model *model, const Pass *pass) {
    int failed = 0;
#pragma omp parallel num_threads(int(pass->threads)) shared(failed)
    run(*model, *pass, failed);
    return failed;
}
