"""Warm starts: another run's weights and nothing else of it, with parts added, and refused where they do not fit."""

import fcntl
import shutil

import pytest
import torch
from helpers.runs import SMALL, trainer, weights, write_run
from helpers.shards import write_tokenizer
from helpers.tiny_model import wake

from rlpt.errors import CheckpointError, ConfigError
from rlpt.models.lora import is_adapter

VALUES = ["objectives.play.algorithm={name: ppo, kl_coefficient: 0}", "objectives.play.reference=''"]
PLAIN = ["model.adapter=null"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def source(tiny):
    """(folder, weights) of a run with adapters and a head, 7 steps old by its own account."""
    with trainer(tiny, "source", *SMALL, *VALUES) as made:
        wake(made.runtime.policy, made.config)
        made.state.step, made.state.episodes = 7, 99
        made._save()
        return tiny.parent / "source", weights(made)


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


def test_a_second_trainer_of_a_run_is_refused(tiny):
    folder = tiny.parent / "twice"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"twice: another run is training there; give this one another name"):
            trainer(tiny, "twice", *SMALL).__enter__()
    assert list(folder.iterdir()) == [folder / ".lock"]


def test_a_resume_with_another_seed_is_refused(tiny):
    with trainer(tiny, "seeded", *SMALL, "schedule.steps=1") as made:
        made.fit()
    with pytest.raises(CheckpointError, match=r"the checkpoint's seed is 1, this run's is 2"):
        trainer(tiny, "seeded", *SMALL, "schedule.steps=2", "seed=2", resume=True).__enter__()
