// Attention of packed rows in training, forward and backward, on a CPU in float32; the rotary turn is part of it.
//
// rlpt/kernels/compiled_attention.py compiles and calls this. A row holds runs side by side; a token attends to the past
// of its own run and, where that goes on from another run, its stem, to all of that. A tree is a stem with what goes on
// from it: trees know nothing of each other, and a tree's heads that share a key are one thread's work.
//
// Keys lie as panels [keys / 32, head, 32] where their products are with queries, and as channels [head / 32, keys, 32]
// where weights are multiplied by them; both are what `product` reads.

#include "vectors.h"

#include <algorithm>
#include <vector>

extern "C" {

struct Run {
    int64_t row, start, stop;
    int64_t stem;  // the run that it goes on from, -1: none
};

struct Attention {
    int64_t length, rows, groups, per_group, head;
    int64_t num_trees;
    const int64_t *trees;  // [num_trees + 1]: where each one's runs begin
    const Run *runs;
    const float *cos, *sin;  // [length, rows, head / 2]
    const float *mixed;      // [length, rows, groups, per_group + 2, head]: a group's queries, its key, its value
    float *out;              // [length, rows, groups, per_group, head]
    float *log_sums;         // [length, rows, groups, per_group] of exponentials of scores
    const float *grad;       // as out; backward only
    float *of_mixed;         // as mixed; backward only
    int64_t threads;
};
}

namespace {

constexpr int64_t MOST_BLOCK = 4 * MOST_ROWS;    // queries whose scores exist at a time
constexpr int64_t MOST_SCORES = 48 * 1024;       // as many floats: what stays near a core

int64_t up(int64_t count, int64_t of = PANEL) { return (count + of - 1) / of * of; }

// Rows [count, width], `stride` apart, times panels: put(row, column, sixteen lanes).
template <class Put>
void products(int64_t count, const float *rows, int64_t stride, int64_t step, const float *panels, int64_t depth,
              int64_t num_panels, Put put) {
    for (int64_t p = 0; p < num_panels; p++) {
        for (int64_t begin = 0; begin < count; begin += MOST_ROWS) {
            const int64_t here = std::min<int64_t>(MOST_ROWS, count - begin);
            product_of(int(here), rows + begin * stride, stride, step, panels + p * depth * PANEL, depth,
                       [&](int64_t r, Lanes low, Lanes high) {
                           put(begin + r, p * PANEL, low);
                           put(begin + r, p * PANEL + LANES, high);
                       });
        }
    }
}

struct Tree {  // of one group; what run r holds lies from at[r] on, its keys padded to whole panels
    const Attention &all;
    int64_t group;
    const Run *runs;
    int64_t count, first_run;
    int64_t wide;  // channels of a head, padded to whole panels
    std::vector<int64_t> at;  // [count + 1] in keys
    std::vector<float> keys, values;  // panels

    int64_t size(int64_t r) const { return runs[r].stop - runs[r].start; }
    int64_t token(int64_t r, int64_t i) const { return (runs[r].start + i) * all.rows + runs[r].row; }
    const float *mixed(int64_t token, int64_t part) const {
        return all.mixed + ((token * all.groups + group) * (all.per_group + 2) + part) * all.head;
    }
    int64_t of_head(int64_t token, int64_t h) const { return (token * all.groups + group) * all.per_group + h; }
};

void turn(const Attention &all, int64_t token, const float *x, float scale, float sign, float *out) {
    const int64_t half = all.head / 2;
    turn(x, all.cos + token * half, all.sin + token * half, half, out, scale, sign);
}

// Tokens [count][head] into panels [count / 32, head, 32]; those after the last are 0.
void to_panels(const float *from, int64_t count, int64_t head, float *panels) {
    for (int64_t j = 0; j < up(count); j++) {
        float *to = panels + j / PANEL * head * PANEL + j % PANEL;
        for (int64_t c = 0; c < head; c++) to[c * PANEL] = j < count ? from[j * head + c] : 0.0f;
    }
}

// Tokens [count][head] into channels [head / 32, count, 32]; channels after the last are 0.
void to_channels(const float *from, int64_t count, int64_t head, float *channels) {
    for (int64_t c = 0; c < up(head); c += PANEL) {
        float *to = channels + c * count;
        const int64_t here = std::min<int64_t>(PANEL, head - c);
        for (int64_t j = 0; j < count; j++) {
            std::memcpy(to + j * PANEL, from + j * head + c, here * sizeof(float));
            for (int64_t i = here; i < PANEL; i++) to[j * PANEL + i] = 0.0f;
        }
    }
}

Tree open(const Attention &all, int64_t tree, int64_t group) {
    const int64_t begin = all.trees[tree], count = all.trees[tree + 1] - begin;
    Tree found{all, group, all.runs + begin, count, begin, up(all.head), {0}, {}, {}};
    for (int64_t r = 0; r < count; r++) found.at.push_back(found.at.back() + up(found.size(r)));
    return found;
}

// Keys, turned, or values of a run, [size][head].
void gather(const Tree &tree, int64_t r, bool is_key, float *out) {
    const Attention &all = tree.all;
    for (int64_t i = 0; i < tree.size(r); i++) {
        const int64_t token = tree.token(r, i);
        const float *from = tree.mixed(token, all.per_group + (is_key ? 0 : 1));
        if (is_key)
            turn(all, token, from, 1.0f, 1.0f, out + i * all.head);
        else
            std::memcpy(out + i * all.head, from, all.head * sizeof(float));
    }
}

// e^(scores - shift) of `length` columns in place, 0 in those up to `end` and the next multiple of 16; their sum.
float exponentials(float *scores, int64_t length, int64_t end, float shift) {
    Lanes total = {};
    for_each_lanes(length, [&](int64_t j, int64_t count) {
        const Lanes value = first(exponential(load(scores + j) - shift), count, 0.0f);
        store(scores + j, value);
        total += value;
    });
    for (int64_t j = up(length, LANES); j < end; j += LANES) store(scores + j, Lanes{});
    return sum(total);
}

float largest(const float *scores, int64_t length, float most) {
    Lanes found = Lanes{} + most;
    for_each_lanes(length, [&](int64_t j, int64_t count) {
        const Lanes value = first(load(scores + j), count, most);
        found = value > found ? value : found;
    });
    for (int i = 0; i < LANES; i++) most = std::max(most, found[i]);
    return most;
}

// Queries of a run that are worked on together, and the scores that they have: of the stem's keys, then of their own.
struct Block {
    int64_t run, stem;       // in the tree; stem -1: none
    int64_t begin, count;    // queries
    int64_t above, own;      // columns of the stem's keys and of their own
    int64_t before, width;   // columns before their own, and of all, in whole panels

    int64_t reach(int64_t query) const { return begin + query + 1; }  // own keys of a query
};

Block block_of(const Tree &tree, int64_t r, int64_t begin, int64_t most) {
    const int64_t stem = tree.runs[r].stem < 0 ? -1 : tree.runs[r].stem - tree.first_run;
    const int64_t count = std::min(most, tree.size(r) - begin), above = stem < 0 ? 0 : tree.size(stem);
    const int64_t own = begin + count;
    return {r, stem, begin, count, above, own, up(above), up(above) + up(own)};
}

int64_t block_size(const Tree &tree, int64_t r) {
    const Block whole = block_of(tree, r, 0, tree.size(r));
    return std::clamp<int64_t>(MOST_SCORES / whole.width / MOST_ROWS * MOST_ROWS, MOST_ROWS, MOST_BLOCK);
}

// scores [count, width] of queries [count][head] with keys (or values) in panels; only what a query can reach is right.
void score(const Tree &tree, const Block &block, const float *queries, const std::vector<float> &panels,
           float *scores) {
    const int64_t head = tree.all.head;
    const auto put = [&](float *to) {
        return [=](int64_t row, int64_t column, Lanes value) { store(to + row * block.width + column, value); };
    };
    if (block.stem >= 0)
        products(block.count, queries, head, 1, panels.data() + tree.at[block.stem] * head, head,
                 block.before / PANEL, put(scores));
    for (int64_t q = 0; q < block.count; q += MOST_ROWS) {
        const int64_t here = std::min<int64_t>(MOST_ROWS, block.count - q);
        products(here, queries + q * head, head, 1, panels.data() + tree.at[block.run] * head, head,
                 up(block.reach(q + here - 1)) / PANEL, put(scores + q * block.width + block.before));
    }
}

// Queries of a head, turned and scaled, [count][head].
void gather_queries(const Tree &tree, const Block &block, int64_t h, float scale, float *out) {
    for (int64_t q = 0; q < block.count; q++) {
        const int64_t token = tree.token(block.run, block.begin + q);
        turn(tree.all, token, tree.mixed(token, h), scale, 1.0f, out + q * tree.all.head);
    }
}

// Rows of weights [count, width] times a block's stem and own keys as channels: put(row, channel, lanes), twice where
// there is a stem.
template <class Put>
void weighted(const Tree &tree, const Block &block, const float *weights, const std::vector<float> &channels, Put put) {
    const int64_t wide = tree.wide;
    const auto part = [&](int64_t run, int64_t from, int64_t depth, int64_t first, int64_t count) {
        const float *own = channels.data() + tree.at[run] * wide;
        for (int64_t c = 0; c < wide; c += PANEL)
            products(count, weights + first * block.width + from, block.width, 1, own + c * tree.size(run), depth, 1,
                     [&](int64_t row, int64_t lane, Lanes value) { put(first + row, c + lane, value); });
    };
    if (block.stem >= 0) part(block.stem, 0, block.above, 0, block.count);
    for (int64_t q = 0; q < block.count; q += MOST_ROWS) {
        const int64_t here = std::min<int64_t>(MOST_ROWS, block.count - q);
        part(block.run, block.before, block.reach(q + here - 1), q, here);
    }
}

void add(float *to, Lanes value) { store(to, load(to) + value); }

void forward_of_block(const Tree &tree, const Block &block, int64_t h, float scale) {
    const Attention &all = tree.all;
    const int64_t head = all.head, wide = tree.wide;
    static thread_local std::vector<float> queries, scores, sums;
    queries.resize(MOST_BLOCK * head);
    scores.resize(block.count * block.width);
    sums.assign(block.count * wide, 0.0f);
    gather_queries(tree, block, h, scale, queries.data());
    score(tree, block, queries.data(), tree.keys, scores.data());
    float totals[MOST_BLOCK];
    for (int64_t q = 0; q < block.count; q++) {
        float *above = scores.data() + q * block.width, *own = above + block.before;
        const float most = largest(own, block.reach(q), largest(above, block.above, -INFINITY));
        const int64_t last = std::min(q / MOST_ROWS * MOST_ROWS + MOST_ROWS, block.count) - 1;
        totals[q] = exponentials(above, block.above, block.above, most);
        totals[q] += exponentials(own, block.reach(q), block.reach(last), most);
        all.log_sums[tree.of_head(tree.token(block.run, block.begin + q), h)] = most + std::log(totals[q]);
    }
    weighted(tree, block, scores.data(), tree.values,
             [&](int64_t q, int64_t c, Lanes value) { add(sums.data() + q * wide + c, value); });
    for (int64_t q = 0; q < block.count; q++) {
        float *out = all.out + tree.of_head(tree.token(block.run, block.begin + q), h) * head;
        for (int64_t c = 0; c < head; c++) out[c] = sums[q * wide + c] / totals[q];
    }
}

// work(block, head, scale of the scores) for all of a tree.
template <class Work>
void for_each_block(const Tree &tree, Work work) {
    const float scale = float(1.0 / std::sqrt(double(tree.all.head)));
    for (int64_t r = 0; r < tree.count; r++) {
        const int64_t most = block_size(tree, r);
        for (int64_t begin = 0; begin < tree.size(r); begin += most)
            for (int64_t h = 0; h < tree.all.per_group; h++) work(block_of(tree, r, begin, most), h, scale);
    }
}

void forward(const Attention &all, int64_t t, int64_t group) {
    Tree tree = open(all, t, group);
    const int64_t head = all.head, wide = tree.wide;
    static thread_local std::vector<float> plain;
    tree.keys.resize(tree.at.back() * head);
    tree.values.resize(tree.at.back() * wide);
    for (int64_t r = 0; r < tree.count; r++) {
        plain.resize(tree.size(r) * head);
        gather(tree, r, true, plain.data());
        to_panels(plain.data(), tree.size(r), head, tree.keys.data() + tree.at[r] * head);
        gather(tree, r, false, plain.data());
        to_channels(plain.data(), tree.size(r), head, tree.values.data() + tree.at[r] * wide);
    }
    for_each_block(tree, [&](const Block &block, int64_t h, float scale) { forward_of_block(tree, block, h, scale); });
}

// Gradients of a block's keys or values, [keys][wide]: weights [count, width] turned over, times channels of what
// stands with the queries, [wide / 32, count, 32].
void spread(const Tree &tree, const Block &block, const float *weights, const std::vector<float> &channels,
            std::vector<float> &grads) {
    const int64_t wide = tree.wide;
    const auto part = [&](int64_t run, int64_t from, int64_t keys) {
        float *to = grads.data() + tree.at[run] * wide;
        for (int64_t c = 0; c < wide; c += PANEL)
            products(keys, weights + from, 1, block.width, channels.data() + c * block.count, block.count, 1,
                     [&](int64_t key, int64_t lane, Lanes value) { add(to + key * wide + c + lane, value); });
    };
    if (block.stem >= 0) part(block.stem, 0, block.above);
    part(block.run, block.before, block.own);
}

struct Gradient {  // of one tree and group
    std::vector<float> channels;          // of turned keys
    std::vector<float> of_keys, of_values;  // [keys][wide]
};

void backward_of_block(const Tree &tree, const Block &block, int64_t h, float scale, Gradient &grads) {
    const Attention &all = tree.all;
    const int64_t head = all.head, wide = tree.wide;
    static thread_local std::vector<float> queries, incoming, weights, slopes, of_queries, channels;
    queries.resize(MOST_BLOCK * head);
    incoming.resize(MOST_BLOCK * head);
    channels.resize(MOST_BLOCK * wide);
    weights.resize(block.count * block.width);
    slopes.resize(block.count * block.width);
    of_queries.assign(block.count * wide, 0.0f);
    gather_queries(tree, block, h, scale, queries.data());
    float along[MOST_BLOCK];
    for (int64_t q = 0; q < block.count; q++) {
        const int64_t at = tree.of_head(tree.token(block.run, block.begin + q), h) * head;
        std::memcpy(incoming.data() + q * head, all.grad + at, head * sizeof(float));
        Lanes product = {};
        for_each_lanes(head, [&](int64_t c, int64_t count) {
            product += load(all.grad + at + c, count) * load(all.out + at + c, count);
        });
        along[q] = sum(product);
    }
    score(tree, block, queries.data(), tree.keys, weights.data());
    score(tree, block, incoming.data(), tree.values, slopes.data());
    for (int64_t q = 0; q < block.count; q++) {
        const float shift = all.log_sums[tree.of_head(tree.token(block.run, block.begin + q), h)];
        float *weight = weights.data() + q * block.width, *slope = slopes.data() + q * block.width;
        exponentials(weight, block.above, block.above, shift);
        exponentials(weight + block.before, block.reach(q), block.own, shift);
        const auto bend = [&](int64_t from, int64_t length) {
            for (int64_t j = from; j < from + length; j += LANES)
                store(slope + j, (load(slope + j) - along[q]) * load(weight + j));
        };
        bend(0, block.above);
        bend(block.before, block.reach(q));
        for (int64_t j = up(block.reach(q), LANES); j < block.own; j += LANES) store(slope + block.before + j, Lanes{});
    }
    weighted(tree, block, slopes.data(), grads.channels,
             [&](int64_t q, int64_t c, Lanes value) { add(of_queries.data() + q * wide + c, value); });
    for (int64_t q = 0; q < block.count; q++) {
        const int64_t token = tree.token(block.run, block.begin + q);
        float *to = all.of_mixed + (tree.mixed(token, h) - all.mixed);
        turn(all, token, of_queries.data() + q * wide, scale, -1.0f, to);
    }
    to_channels(incoming.data(), block.count, head, channels.data());
    spread(tree, block, weights.data(), channels, grads.of_values);
    to_channels(queries.data(), block.count, head, channels.data());
    spread(tree, block, slopes.data(), channels, grads.of_keys);
}

void backward(const Attention &all, int64_t t, int64_t group) {
    Tree tree = open(all, t, group);
    const int64_t head = all.head, wide = tree.wide;
    static thread_local std::vector<float> plain;
    Gradient grads;
    tree.keys.resize(tree.at.back() * head);
    tree.values.resize(tree.at.back() * head);
    grads.channels.resize(tree.at.back() * wide);
    grads.of_keys.assign(tree.at.back() * wide, 0.0f);
    grads.of_values.assign(tree.at.back() * wide, 0.0f);
    for (int64_t r = 0; r < tree.count; r++) {
        plain.resize(tree.size(r) * head);
        gather(tree, r, true, plain.data());
        to_panels(plain.data(), tree.size(r), head, tree.keys.data() + tree.at[r] * head);
        to_channels(plain.data(), tree.size(r), head, grads.channels.data() + tree.at[r] * wide);
        gather(tree, r, false, plain.data());
        to_panels(plain.data(), tree.size(r), head, tree.values.data() + tree.at[r] * head);
    }
    for_each_block(tree, [&](const Block &block, int64_t h, float scale) {
        backward_of_block(tree, block, h, scale, grads);
    });
    for (int64_t r = 0; r < tree.count; r++) {
        for (int64_t i = 0; i < tree.size(r); i++) {
            const int64_t token = tree.token(r, i), from = (tree.at[r] + i) * wide;
            float *to = all.of_mixed + (tree.mixed(token, all.per_group) - all.mixed);
            turn(all, token, grads.of_keys.data() + from, 1.0f, -1.0f, to);
            std::memcpy(to + head, grads.of_values.data() + from, head * sizeof(float));
        }
    }
}

template <class Work>
void for_each_tree(const Attention &all, Work work) {
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(int(all.threads))
    for (int64_t t = 0; t < all.num_trees; t++)
        for (int64_t g = 0; g < all.groups; g++) work(all, t, g);
}

}  // namespace

extern "C" void rlpt_attention(const Attention *all) { for_each_tree(*all, forward); }

extern "C" void rlpt_attention_backward(const Attention *all) { for_each_tree(*all, backward); }
