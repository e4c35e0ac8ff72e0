// RMSNorm and SwiGLU, forward and backward, each in one pass, on a CPU in float32.
//
// rlpt/kernels/compiled_layers.py compiles and calls this.

#include "vectors.h"

namespace {

inline Lanes sigmoid(Lanes x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace

extern "C" {

// x [n, width] / rms * weight into out; 1 / rms into scale [n].
void rlpt_normalized(const float *x, const float *weight, double epsilon, int64_t n, int64_t width, float *out,
                     float *scale, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(int(threads))
    for (int64_t r = 0; r < n; r++) {
        const float *in = x + r * width;
        float *to = out + r * width;
        Lanes squares = {};
        for_each_lanes(width, [&](int64_t c, int64_t count) {
            const Lanes value = load(in + c, count);
            squares += value * value;
        });
        const float inverse = 1.0f / std::sqrt(sum(squares) / float(width) + float(epsilon));
        scale[r] = inverse;
        for_each_lanes(width, [&](int64_t c, int64_t count) {
            store(to + c, load(in + c, count) * inverse * load(weight + c, count), count);
        });
    }
}

// grad [n, width] -> of_x [n, width] and of_weight [parts, width], zeros before, whose sum is the weight's.
void rlpt_normalized_backward(const float *x, const float *weight, const float *scale, const float *grad, int64_t n,
                              int64_t width, float *of_x, float *of_weight, int64_t parts) {
#pragma omp parallel for schedule(static) num_threads(int(parts))
    for (int64_t p = 0; p < parts; p++) {
        float *total = of_weight + p * width;
        for (int64_t r = n * p / parts; r < n * (p + 1) / parts; r++) {
            const float *in = x + r * width, *from = grad + r * width;
            float *to = of_x + r * width;
            const float inverse = scale[r];
            Lanes along = {};
            for_each_lanes(width, [&](int64_t c, int64_t count) {
                const Lanes normal = load(in + c, count) * inverse, incoming = load(from + c, count);
                store(total + c, load(total + c, count) + incoming * normal, count);
                along += incoming * load(weight + c, count) * normal;
            });
            const float mean = sum(along) / float(width);
            for_each_lanes(width, [&](int64_t c, int64_t count) {
                const Lanes normal = load(in + c, count) * inverse;
                store(to + c, (load(from + c, count) * load(weight + c, count) - normal * mean) * inverse, count);
            });
        }
    }
}

// both [n, 2 width], gate beside up -> silu(gate) * up into out [n, width].
void rlpt_gated(const float *both, int64_t n, int64_t width, float *out, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(int(threads))
    for (int64_t r = 0; r < n; r++) {
        const float *gates = both + r * 2 * width, *ups = gates + width;
        for_each_lanes(width, [&](int64_t c, int64_t count) {
            const Lanes gate = load(gates + c, count);
            store(out + r * width + c, gate * sigmoid(gate) * load(ups + c, count), count);
        });
    }
}

// grad [n, width] -> out [n, 2 width].
void rlpt_gated_backward(const float *both, const float *grad, int64_t n, int64_t width, float *out, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(int(threads))
    for (int64_t r = 0; r < n; r++) {
        const float *gates = both + r * 2 * width, *ups = gates + width;
        float *of_gates = out + r * 2 * width, *of_ups = of_gates + width;
        for_each_lanes(width, [&](int64_t c, int64_t count) {
            const Lanes gate = load(gates + c, count), open = sigmoid(gate), incoming = load(grad + r * width + c, count);
            store(of_gates + c, incoming * load(ups + c, count) * open * (1.0f + gate * (1.0f - open)), count);
            store(of_ups + c, incoming * gate * open, count);
        });
    }
}
}
