"""Whole runs on one rank in this process: a bilevel run and its resume, a warm start, what a stopped run leaves."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.runs import metric_rows, steps, write_run
from helpers.shards import write_tokenizer
from helpers.tiny_model import one_rank, wake

from rlpt.config import load_config
from rlpt.errors import CheckpointError, ConfigError
from rlpt.models.lora import is_adapter
from rlpt.training.loop import Trainer
from rlpt.training.runtime import build_runtime
from rlpt.training.shadow import MOMENTS, NAMES, SHADOW
from rlpt.training.sources import check_pair
from rlpt.training.stopping import LARGEST, WORST, write_worst_rows

SMALL = [
    *("parallel.tensor=1", "parallel.distributed_optimizer=false", "tracking.wandb=disabled"),
    *("evaluation.tasks=[]", "evaluation.text=[]", "objectives.values=null", "objectives.roles=null"),
    *("objectives.play.source.groups=2", "objectives.play.source.unreachable=ignore", "schedule.decay=constant"),
]
BILEVEL = [*SMALL, "bilevel={upper: text, lower: play}", "schedule.steps=4", "checkpoint.interval=2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@contextmanager
def trainer(tiny, name, *overrides, resume=None):
    """A Trainer of the tiny run with its folder called `name`; everything is let go at the end."""
    with one_rank():
        made = Trainer(build_runtime(load_config(tiny, [f"run_dir={tiny.parent / name}", *overrides])), resume)
        yield made
        made.folder._lock.close()  # what the end of the process does


def weights(made):
    return {name: one.detach().clone() for name, one in made.runtime.policy.gpt.named_parameters()}


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
    assert all(row["bilevel/gain_error"] > 0 for step, row in rows.items() if step > 1)
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


@pytest.fixture(scope="module")
def source(tiny):
    """(folder, weights) of a run with adapters and a head, 7 steps old by its own account."""
    with trainer(tiny, "source", *SMALL, *VALUES) as made:
        wake(made.runtime.policy, made.config)
        made.state.step, made.state.episodes = 7, 99
        made._save()
        return tiny.parent / "source", weights(made)


VALUES = ["objectives.play.algorithm={name: ppo, kl_coefficient: 0}", "objectives.play.reference=''"]
PLAIN = ["model.adapter=null"]


@pytest.fixture(scope="module")
def plain(tiny):
    """The same of one without."""
    with trainer(tiny, "plain", *SMALL, *PLAIN) as made:
        with torch.no_grad():
            for parameter in made.runtime.policy.gpt.parameters():
                parameter.mul_(1.5)
        made._save()
        return tiny.parent / "plain", weights(made)


def test_a_warm_start_takes_the_weights_and_nothing_else(tiny, source):
    folder, wanted = source
    with trainer(tiny, "warm", *SMALL, *VALUES, f"warm_start={folder}") as made:
        assert all(torch.equal(one, wanted[name]) for name, one in weights(made).items())
        assert weights(made).keys() == wanted.keys()
        assert (made.state.step, made.state.episodes, made.resumed_step) == (0, 0, None)
        assert made.snapshots.names() == []
    at = folder / "checkpoints" / "step-00000007"
    with trainer(tiny, "warm_at", *SMALL, *VALUES, f"warm_start={at}", "model.adapter.lr_scale=0.1") as made:
        assert all(torch.equal(one, wanted[name]) for name, one in weights(made).items())


def test_a_warm_start_with_adapters_and_a_head_added(tiny, plain):
    folder, wanted = plain
    with trainer(tiny, "added", *SMALL, *VALUES, f"warm_start={folder}") as made:
        found = weights(made)
        assert all(torch.equal(found[name], one) for name, one in wanted.items())
        added = found.keys() - wanted.keys()
        assert {name for name in added if not is_adapter(name)} == {"heads.value.weight", "heads.value.bias"}
        assert len(added) == 2 + 16
        assert not any(found[name].any() for name in added if name.endswith("adapter_b") or name.startswith("heads."))
        assert all(found[name].any() for name in added if name.endswith("adapter_a"))


def test_a_warm_start_with_a_head_left_out(tiny, source):
    folder, wanted = source
    with trainer(tiny, "headless", *SMALL, f"warm_start={folder}") as made:
        found = weights(made)
        assert wanted.keys() - found.keys() == {"heads.value.weight", "heads.value.bias"}
        assert all(torch.equal(one, wanted[name]) for name, one in found.items())


def test_a_warm_start_in_bfloat16_reaches_the_master_weights(tiny, plain):
    """A step of rate 0: master weights that were not set would overwrite the weights with their own."""
    folder, wanted = plain
    for distributed in ("true", "false"):
        overrides = [*SMALL, *PLAIN, "device.dtype=bfloat16", f"parallel.distributed_optimizer={distributed}"]
        with trainer(tiny, f"half_{distributed}", *overrides, f"warm_start={folder}") as made:
            made.optimizer.zero_grad()
            made.optimizer.step(0.0, 0.0)
            found = weights(made)
            assert all(torch.equal(found[name], one.to(torch.bfloat16)) for name, one in wanted.items())


def test_a_resumed_run_does_not_start_warm_again(tiny, plain):
    overrides = [*SMALL, *PLAIN, "schedule.steps=1"]
    with trainer(tiny, "resumed", *overrides) as made:
        made.fit()
        present = weights(made)
    with trainer(tiny, "resumed", *overrides, f"warm_start={plain[0]}", resume=True) as made:
        assert all(torch.equal(one, present[name]) for name, one in weights(made).items())


@pytest.mark.parametrize(
    ("given", "overrides", "error", "message"),
    [
        ("nowhere", [], ConfigError, "warm_start=.*nowhere: neither a run with checkpoints nor a checkpoint"),
        ("data", [], ConfigError, "neither a run with checkpoints"),
        ("plain", ["model.ffn_hidden_size=64"], CheckpointError, r"model\.ffn_hidden_size: was 48, is 64"),
        ("plain", ["tokenizer={tiny}/other"], CheckpointError, "tokenizer hash: was"),
        ("source", PLAIN, CheckpointError, r"model\.adapter: was .*'rank': 2.*, is None"),
        ("source", ["model.adapter.rank=3"], CheckpointError, r"model\.adapter: was .* is .*'rank': 3"),
        ("source", ["model.adapter.alpha=3"], CheckpointError, r"model\.adapter: was .* is .*'alpha': 3"),
        ("damaged/checkpoints/step-00000000", PLAIN, CheckpointError, "sha256 differs"),
    ],
)
def test_a_warm_start_that_does_not_fit_is_refused(tiny, plain, source, given, overrides, error, message):
    folder = tiny.parent
    if given.startswith("damaged") and not (folder / "damaged").exists():
        shutil.copytree(plain[0], folder / "damaged")
        path = next((folder / given / "weights").glob("*.distcp"))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if "other" in str(overrides) and not (folder / "other").exists():
        write_tokenizer(folder / "other", 420)
    overrides = [text.replace("{tiny}", str(folder)) for text in overrides]
    started = trainer(tiny, "refused", *SMALL, "objectives.text=null", *overrides, f"warm_start={folder / given}")
    with pytest.raises(error, match=message), started:
        pass


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
        text = made.runtime.tokenizer.decode(kept.labels[row][kept.segments[row] == segment].tolist())
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


def with_reference(tiny, *overrides):
    """(configuration, algorithm) of the tiny run's play."""
    with trainer(tiny, "pairs", *SMALL) as made:
        algorithm = made.streams["play"].algorithm
    return load_config(tiny, [*SMALL, *overrides]), algorithm


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectives.play.reference=''"], r"objectives\.play\.reference: .* needs a snapshot to refer to"),
        (["objectives.play.reference=past"], "'past' is a pool of copies"),
        (
            ["snapshots.lagged.start_step=3", "objectives.play.start_step=2"],
            "'lagged' is first taken before step 3, and the objective starts at step 2",
        ),
        (["objectives.play.source={name: corpus}"], "needs rewards, which source 'corpus' does not give"),
    ],
)
def test_algorithm_source_and_reference_must_go_together(tiny, overrides, message):
    config, algorithm = with_reference(tiny, *overrides)
    with pytest.raises(ConfigError, match=message):
        check_pair(config, "play", algorithm)


def test_a_reference_that_is_taken_before_the_objectives_first_turn_will_do(tiny):
    turns = "objectives.play.turns={period: 4, active: 1, offset: 1}"
    config, algorithm = with_reference(tiny, "snapshots.lagged.start_step=3", "objectives.play.start_step=2", turns)
    check_pair(config, "play", algorithm)
