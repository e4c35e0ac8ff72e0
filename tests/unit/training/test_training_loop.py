"""Whole runs on one rank in this process: a bilevel run, its resume and its costs."""

import json
import shutil

import pytest
import torch
from helpers.runs import SMALL, metric_rows, steps, trainer, weights, write_run

from rlpt.training.shadow import MOMENTS, NAMES, SHADOW

BILEVEL = [
    *(*SMALL, "bilevel={upper: text, lower: play}", "schedule.steps=4", "checkpoint.interval=2"),
    *("objectives.play.source.minibatches=2", "objectives.play.source.groups=4"),  # resumed within an epoch over a play
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


def saved_files(run, step):
    """State and weights of a checkpoint, timings left out."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    state = json.loads((folder / "state.json").read_text())
    return {key: value for key, value in state.items() if key != "seconds"}, {
        path.name: path.read_bytes() for path in (folder / "weights").glob("__*")
    }


@pytest.fixture(scope="module")
def bilevel(tiny):
    """The folder of a bilevel run of four steps, checkpoints of steps 2 and 4."""
    with trainer(tiny, "bilevel", *BILEVEL) as made:
        made.fit()
    return tiny.parent / "bilevel"


def test_a_bilevel_run_logs_its_gain_every_step(bilevel):
    rows = steps(metric_rows(bilevel))
    assert list(rows) == [1, 2, 3, 4]
    assert rows[1]["bilevel/gain"] == rows[1]["bilevel/gain_error"] == 0  # the shadow starts at the weights
    assert any(row["bilevel/gain"] for row in rows.values())
    assert all(row["bilevel/gain_error"] > 0 for row in rows.values() if row["bilevel/gain"])
    assert all(row["bilevel/shadow_gradient_norm"] > 0 for row in rows.values())
    assert all(row["text/coefficient"] == row["play/coefficient"] == 0.5 for row in rows.values())


def test_a_bilevel_run_resumed_is_the_run_without_a_break(tiny, bilevel):
    broken = shutil.copytree(bilevel, tiny.parent / "broken")
    shutil.rmtree(broken / "checkpoints" / "step-00000004")
    with trainer(tiny, "broken", *BILEVEL, resume=True) as made:
        assert made.resumed_step == 2
        assert made.shadow.updates == 2
        made.fit()
    assert steps(metric_rows(broken)) == steps(metric_rows(bilevel))
    ours, theirs = saved_files(broken, 4), saved_files(bilevel, 4)
    assert ours[0]["shadow"] == {"updates": 4}
    assert set(NAMES) <= set(ours[0]["snapshots"])
    assert ours == theirs


def test_the_passes_at_the_shadow_are_paid_for(bilevel, tiny):
    """The first step's episodes are the same with and without: 6 FLOPs a weight more of each position and label."""
    with trainer(tiny, "joint", *BILEVEL, "bilevel.meta=false", "schedule.steps=1") as made:
        made.fit()
    joint, row = (steps(metric_rows(tiny.parent / name))[1] for name in ("joint", "bilevel"))
    assert joint["play/fingerprint"] == row["play/fingerprint"]
    account = json.loads((tiny.parent / "joint" / "summary.json").read_text())["accounts"]["play"]
    more = 6 * (15_360 * account["update_tokens"] + 32 * 400 * account["loss_tokens"])
    assert row["play/flops"] - joint["play/flops"] == more > 0
    assert row["text/flops"] == joint["text/flops"]
    assert "bilevel/gain" not in joint


def test_a_run_that_becomes_a_bilevel_one_starts_its_shadow_at_its_weights(tiny):
    with trainer(tiny, "becomes", *SMALL, "schedule.steps=1") as made:
        made.fit()
        present = weights(made)
    with trainer(tiny, "becomes", *BILEVEL, resume=True) as made:
        assert made.shadow.updates == 0
        shadow = made.snapshots.tensors(SHADOW)
        assert all(torch.equal(shadow[name], one) for name, one in present.items())
        assert not any(one.any() for name in MOMENTS.values() for one in made.snapshots.tensors(name).values())


def test_a_run_that_is_a_bilevel_one_no_more_lets_its_shadow_go(tiny, bilevel):
    shutil.copytree(bilevel, tiny.parent / "no_more")
    with trainer(tiny, "no_more", *BILEVEL, "bilevel=null", "schedule.steps=5", resume=True) as made:
        assert made.resumed_step == 4
        assert made.snapshots.names() == ["average", "lagged", "past@0", "past@3"]
