"""What a run keeps in memory on each rank, worked out before anything is built: weights, gradients, optimizer, copies.

Activations and the KV cache of rollouts come on top; they depend on the rows and are freed in between.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from rlpt.config import Config
from rlpt.training.accounting import weights_per_token

FLOAT32 = 4
SHADOW_COPIES = 5  # the shadow and its two moments; in a step its gradient, and that of the weights set aside


def memory_rows(config: Config, vocabulary: int, dtype_bytes: int, data_size: int) -> list[tuple[str, str]]:
    """(what, size) rows of one rank, the total last. `vocabulary` is padded; `dtype_bytes` of a weight (4 or 2)."""
    shards = config.parallel.tensor * config.parallel.pipeline
    trained = (base_parameters(config, vocabulary) + adapter_parameters(config)) / shards
    over_ranks = data_size if config.parallel.distributed_optimizer else 1
    moments = 2 * FLOAT32 + (FLOAT32 if dtype_bytes < FLOAT32 else 0)  # AdamW's, and master weights
    sizes = {
        "weights": trained * dtype_bytes,
        "gradients": trained * FLOAT32,
        "optimizer": trained * moments / over_ranks,
    }
    for name, one in config.snapshots.items():
        each = FLOAT32 if one.update == "ema" else dtype_bytes
        sizes[f"snapshot {name}"] = trained * each * one.copies
    if config.bilevel is not None and config.bilevel.meta:
        sizes["shadow, its moments and gradients"] = SHADOW_COPIES * trained * FLOAT32
    sizes["in all"] = sum(sizes.values())
    return [(f"memory a rank, {what}", megabytes(size)) for what, size in sizes.items()]


@contextmanager
def settled_heap() -> Iterator[None]:
    """Inside, the garbage collector passes over all objects that there are by now. It would find no garbage in modules
    and model, and walks them for longer than a small model's step while the other ranks wait."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def weight_bytes(config: Config) -> int:
    """Of one weight, as far as the configuration says: 2 for bfloat16, else 4."""
    return 2 if config.device.dtype == "bfloat16" else FLOAT32


def base_parameters(config: Config, vocabulary: int) -> int:
    """Weights of the decoder: grouped-query attention, SwiGLU, RMSNorm, no biases, `vocabulary` padded rows."""
    model = config.model
    body, _ = weights_per_token(model, vocabulary)
    norms = (2 * model.num_layers + 1) * model.hidden_size
    return body + norms + vocabulary * model.hidden_size * (1 if model.tie_embeddings else 2)


def adapter_parameters(config: Config) -> int:
    """Weights of the low-rank adapters, one beside each of a layer's four linear maps."""
    model = config.model
    if model.adapter is None:
        return 0
    width, inner = model.hidden_size, model.ffn_hidden_size
    groups = width // model.num_attention_heads * model.num_query_groups
    outputs = (width + 2 * groups) + width + 2 * inner + width
    inputs = width + width + width + inner
    return model.num_layers * model.adapter.rank * (inputs + outputs)


def megabytes(size: float) -> str:
    """Bytes as megabytes or gigabytes."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
