"""Bits per byte by hand, and unchanged by how the rows are split over ranks."""

import math

import numpy as np
import pytest
import torch

from rlpt.batch import Batch, Scores
from rlpt.errors import DataError
from rlpt.evaluation.perplexity import text_bits_per_byte, unigram_bits_per_byte

BYTE_LENGTHS = np.array([0, 1, 2, 3])
LOGPROBS = torch.log(torch.tensor([0.125, 0.25, 0.5, 0.0625]))  # of each token, whatever came before


def batch(labels, mask):
    labels, mask = torch.tensor(labels), torch.tensor(mask, dtype=torch.bool)
    zeros = torch.zeros_like(labels)
    return Batch("text", zeros, labels, zeros, mask, zeros)


def score(batch):
    return Scores(LOGPROBS[batch.labels], torch.zeros(batch.labels.shape))


def alone(sums):
    return sums


def test_by_hand_with_masked_labels_and_a_mark_of_no_bytes():
    batches = [batch([[1, 2, 3]], [[1, 1, 0]]), batch([[0, 3, 3]], [[1, 1, 0]])]
    assert text_bits_per_byte(score, batches, BYTE_LENGTHS, alone) == pytest.approx((2 + 1 + 3 + 4) / (1 + 2 + 0 + 3))


def test_two_ranks_equal_one():
    batches = [batch([[1, 2, 3]], [[1, 1, 1]]), batch([[2, 2, 0]], [[1, 0, 0]])]
    whole = text_bits_per_byte(score, batches, BYTE_LENGTHS, alone)
    parts = []
    for one in batches:
        text_bits_per_byte(score, [one], BYTE_LENGTHS, lambda sums: parts.append(sums) or sums)
    assert parts[0].sum() != parts[1].sum()
    assert text_bits_per_byte(score, batches[:1], BYTE_LENGTHS, lambda sums: sums + parts[1]) == pytest.approx(whole)


def test_unigram_is_add_one_smoothed():
    counts = np.array([0, 5, 2, 1])
    expected = -(math.log2(6 / 12) + math.log2(1 / 12)) / (1 + 0)
    assert unigram_bits_per_byte(counts, [batch([[1, 0, 3]], [[1, 1, 0]])], BYTE_LENGTHS, alone) == pytest.approx(
        expected
    )


def test_no_bytes_is_an_error():
    with pytest.raises(DataError, match=r"evaluation\.text"):
        text_bits_per_byte(score, [batch([[1]], [[0]])], BYTE_LENGTHS, alone)
