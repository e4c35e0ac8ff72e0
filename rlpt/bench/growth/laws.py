"""What work costs by its definition: operations, and bytes of what must be held. No rate is in here.

A rollout of N tokens after P given ones runs P + N - 1 tokens: the last one drawn is not read.
"""

from __future__ import annotations

from rlpt.bench.generation import Shape

HEAD_PRODUCTS = 6  # operations of the output layer's three products for each (row, column, width)


def read_flops(shape: Shape, start: int, stop: int) -> float:
    """Operations of the tokens that stand at [start, stop) of one text, each of which attends to itself and to all
    before it."""
    count = stop - start
    return count * shape.flops((start + 1 + stop) / 2)


def rollout_flops(shape: Shape, prompt: int, new: int, prompts: int, samples: int) -> float:
    """Operations of `samples` rows of `new` tokens that go on from `prompts` readings of a prompt."""
    steps = read_flops(shape, prompt, prompt + new - 1)
    return prompts * read_flops(shape, 0, prompt) + samples * steps


def kept_turns_flops(shape: Shape, turns: int, given: int, new: int) -> float:
    """Operations of a conversation whose every token is read once: turns * (given + new) - 1 tokens."""
    return read_flops(shape, 0, turns * (given + new) - 1)


def reread_turns_flops(shape: Shape, turns: int, given: int, new: int) -> float:
    """Operations where each turn reads all before it: turn t reads t * (given + new) - 1 tokens, so k turns read
    (given + new) * k * (k + 1) / 2 - k."""
    return sum(read_flops(shape, 0, turn * (given + new) - 1) for turn in range(1, turns + 1))


def cache_bytes(shape: Shape, tokens: float, itemsize: int) -> float:
    """Of the keys and values of so many tokens."""
    return shape.cache_elements(tokens) * itemsize


def head_flops(rows: int, hidden: int, vocabulary: int) -> float:
    """Operations of loss and gradients of an output layer: logits, and the gradients of states and weight."""
    return HEAD_PRODUCTS * rows * hidden * vocabulary


def state_bytes(shape: Shape, ranks: int, itemsize: int) -> float:
    """Of one tensor rank's weights, gradients and AdamW's two moments, and of its float32 masters where weights are
    narrower: matrices are split, the norms' scales are not."""
    parameters = shape.weights / ranks + shape.parameters - shape.weights
    float32 = 4
    return parameters * (itemsize + 3 * float32 + (float32 if itemsize < float32 else 0))


def sent_bytes(shape: Shape, tokens: int, ranks: int, itemsize: int) -> float:
    """That one tensor rank sends in a step's all-reduces of [tokens, hidden], by rings: four a layer (attention and
    MLP, forward and backward), one of the embedding and one of the output layer's gradient."""
    reductions = 4 * shape.num_layers + 2
    return reductions * ring_bytes(tokens * shape.hidden_size * itemsize, ranks)


def ring_bytes(size: float, ranks: int) -> float:
    """That each rank sends to all-reduce so many bytes by a ring."""
    return 2 * (ranks - 1) / ranks * size
