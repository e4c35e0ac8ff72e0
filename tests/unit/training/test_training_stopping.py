"""What a run leaves behind that stops itself: the trajectories furthest off, token by token."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, trainer, write_run

from rlpt.training.stopping import LARGEST, WORST, write_worst_rows


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


def test_the_worst_rows_of_a_stopped_run(tiny, tmp_path):
    """Rows of the play that a step would learn from, one of them with a sampler that says something else."""
    with trainer(tiny, "rows", *SMALL) as made:
        made.keeper.before_step(0)
        batches = {name: stream.source.take(2, step=0) for name, stream in made.streams.items()}
        kept = batches["play"][1]
        odd = kept.behavior_logprobs.clone()
        mask, row = kept.loss_mask, int(kept.loss_mask.any(1).nonzero()[0])
        segment = int(kept.segments[row][mask[row]][0])
        here = mask[row] & (kept.segments[row] == segment)
        odd[row][here] -= 2.0
        batches["play"][1] = replace(kept, behavior_logprobs=odd)
        found = json.loads(write_worst_rows(made.runtime, tmp_path, 6, batches).read_text())
        with torch.no_grad():  # what is not a number is as far off as can be
            made.runtime.policy.gpt.head_weight().fill_(torch.nan)
        broken = json.loads(write_worst_rows(made.runtime, tmp_path, 7, batches).read_text())
        own = kept.segments[row] == segment
        stem = kept.segments[row] == kept.parents[row][own][0]  # the prompt, whose last token is the segment's first
        text = made.runtime.tokenizer.decode(kept.labels[row][own | stem].tolist())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "stopped-step-00000007.json",
        "stopped-step-00000008.json",
    ]
    assert found["step"] == 7
    assert len(found["worst"]) == WORST
    worst, *others = found["worst"]
    assert worst["objective"] == "play"
    assert worst["text"] == text
    assert worst["tokens"] == kept.labels[row][here].tolist()
    np.testing.assert_allclose(worst["log_ratio"], 2.0, atol=1e-4)
    assert worst["mean_abs_log_ratio"] == pytest.approx(2.0, abs=1e-4)
    np.testing.assert_allclose(worst["sampler_logprobs"], odd[row][here].numpy(), atol=1e-5)
    np.testing.assert_allclose(worst["advantages"], kept.advantages[row][here].numpy())
    assert worst["policy_steps"] == [0.0] * int(here.sum())
    assert max(one["mean_abs_log_ratio"] for one in others) < 1e-4
    assert broken["worst"][0]["mean_abs_log_ratio"] == LARGEST
