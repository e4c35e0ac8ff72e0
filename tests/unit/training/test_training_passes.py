"""Microbatches that run together: which rows share a pass, and that the gradient does not know."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_model import LENGTH, build, one_rank, random_batch, tiny_config, wake

from rlpt.batch import Batch
from rlpt.rollout.packing import RowShape, pack
from rlpt.training.optimizer import wrap_data_parallel
from rlpt.training.passes import Pass, fill
from rlpt.training.runtime import create_algorithms
from rlpt.training.step import TrainStep
from rlpt.types import Trajectory

CPU = torch.device("cpu")


def rows_of(count, length, objective="text"):
    tokens = torch.arange(count * length).view(count, length)
    whole = torch.ones_like(tokens, dtype=torch.bool)
    return Batch(objective, tokens, tokens + 1, torch.arange(length).expand(count, -1), whole, torch.zeros_like(tokens))


def shapes(passes):
    return [[tuple(part.tokens.shape) for part in one] for one in passes]


def may_split(batch):
    return len(batch.tokens) > 1


def test_text_fills_what_trajectories_leave():
    play = [rows_of(1, 90, "play"), rows_of(1, 88, "play")]
    passes = fill([rows_of(14, 10), *play], 160, may_split)
    assert shapes(passes) == [[(1, 90), (7, 10)], [(1, 88), (7, 10)]]
    rows = torch.cat([part.tokens for one in passes for part in one if part.objective == "text"])
    assert torch.equal(rows, rows_of(14, 10).tokens)


def test_short_rows_of_trajectories_share_a_pass():
    passes = fill([rows_of(4, 10), rows_of(1, 30, "play"), rows_of(1, 40, "play")], 80, may_split)
    assert shapes(passes) == [[(1, 30), (1, 40), (1, 10)], [(3, 10)]]


@pytest.mark.parametrize("room", [0, 160])
def test_where_it_takes_no_fewer_passes_nothing_is_touched(room):
    batches = [rows_of(16, 10), rows_of(1, 150, "play"), rows_of(1, 500, "play")]
    passes = fill(batches, room, may_split)
    assert [one[0] for one in passes] == batches
    assert all(len(one) == 1 for one in passes)


def test_segments_of_parts_are_told_apart_and_padding_stays_padding():
    first = replace(rows_of(2, 3), segments=torch.tensor([[0, 1, -1], [0, 0, 0]]))
    second = replace(rows_of(1, 4), segments=torch.tensor([[0, 1, 2, -1]]), parents=torch.tensor([[-1, 0, 0, -1]]))
    together = Pass.of([first, second], CPU)
    assert together.segments.tolist() == [[0, 1, -1, 2, 2, 2, 4, 5, 6, -1]]
    assert together.parents is not None
    assert together.parents.tolist() == [[-1, -1, -1, -1, -1, -1, -1, 4, 4, -1]]
    assert together.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]]
    assert [place for _, _, place in together.places()] == [0, 6]
    assert Pass.of([first, first], CPU).parents is None


def test_the_gradient_of_trees_and_text_in_one_pass_is_that_of_two():
    with one_rank():
        config = tiny_config(dtype="float64", init_std=0.2)
        _, policy = build(config)
        wake(policy, config)
        model = wrap_data_parallel(config, policy.gpt, policy.device)
        generator = torch.Generator().manual_seed(0)
        ids = [torch.randint(1, 60, (12,), generator=generator).numpy() for _ in range(4)]
        for one in ids:
            one[:5] = ids[0][:5]
        mask = torch.arange(12).numpy() >= 5
        played = [Trajectory("solver", 0, one, mask, -4.0 * mask, advantage=at - 1.5) for at, one in enumerate(ids)]
        batches = {
            "text": [random_batch("text", 1, 0.8)],
            "play": pack(played, "play", 1, RowShape(LENGTH, 60, 0)),
        }
        assert batches["play"][0].parents is not None
        found = []
        for room in (0, 8 * LENGTH):
            step = TrainStep(policy, model, None, create_algorithms(config), room=room)
            model.zero_grad_buffer()
            sums = step.forward_backward(batches, {"text": 1.0, "play": 0.7}, step.global_counts(batches))
            found.append((torch.cat([p.main_grad.flatten().clone() for p in policy.gpt.parameters()]), sums.totals))
        (apart, totals), (together, others) = found
        assert apart.norm() > 1e-3
        assert (apart - together).norm() < 1e-12 * apart.norm()
        assert set(totals) == set(others)
        assert all(torch.allclose(totals[key], others[key]) for key in totals)
