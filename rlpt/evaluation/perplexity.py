"""Bits per byte of held-out text: the model's, and a unigram model's over the same label tokens.

Bytes, not tokens, are the unit, so that figures compare across tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from rlpt.batch import Batch, Scores
from rlpt.errors import DataError

Reduce = Callable[[np.ndarray], np.ndarray]  # sums an array over data-parallel ranks


def text_bits_per_byte(
    score: Callable[[Batch], Scores], batches: Iterable[Batch], byte_lengths: np.ndarray, reduce: Reduce
) -> float:
    """Sum of -log2 p over the labels in the loss mask / UTF-8 bytes of those labels.

    `byte_lengths` [V] int: bytes of each token (0 for marks: what they cost counts, bytes they have none). Every
    data-parallel rank scores its own `batches`, as many as the others. Raises DataError when there are no bytes.
    """
    bits = num_bytes = 0.0
    with torch.no_grad():
        for batch in batches:
            logprobs = score(batch).logprobs
            mask = batch.loss_mask.to(logprobs.device)
            bits -= logprobs.masked_select(mask).double().sum().item() / math.log(2)
            num_bytes += float(byte_lengths[_masked_labels(batch)].sum())
    return _ratio(bits, num_bytes, reduce)


def unigram_bits_per_byte(
    train_counts: np.ndarray, batches: Iterable[Batch], byte_lengths: np.ndarray, reduce: Reduce
) -> float:
    """The same figure for a unigram model with add-one smoothing, p(v) = (count_v + 1) / (total + V).

    `train_counts` [V] int: how often each token is in the training text.
    """
    smoothed = train_counts.astype(np.float64) + 1.0
    token_bits = math.log2(smoothed.sum()) - np.log2(smoothed)
    bits = num_bytes = 0.0
    for batch in batches:
        labels = _masked_labels(batch)
        bits += float(token_bits[labels].sum())
        num_bytes += float(byte_lengths[labels].sum())
    return _ratio(bits, num_bytes, reduce)


def _masked_labels(batch: Batch) -> np.ndarray:
    return batch.labels.masked_select(batch.loss_mask).cpu().numpy()


def _ratio(bits: float, num_bytes: float, reduce: Reduce) -> float:
    bits, num_bytes = map(float, reduce(np.array([bits, num_bytes], dtype=np.float64)))
    if num_bytes == 0:
        raise DataError(
            "evaluation.text: the held-out shards hold no label bytes; prepare longer held-out text, or leave "
            "evaluation.text empty"
        )
    return bits / num_bytes
