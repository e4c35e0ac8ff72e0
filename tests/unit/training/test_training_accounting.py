"""What a run costs and what it keeps in memory: hand-computed figures, and the real model's own count."""

import gc

import pytest
from helpers.runs import write_run
from helpers.tiny_model import VOCABULARY, build, one_rank, tiny_config

from rlpt.__main__ import main
from rlpt.config import load_config, parse_config
from rlpt.training.accounting import Account, step_account, weights_per_token
from rlpt.training.memory import adapter_parameters, base_parameters, megabytes, memory_rows, settled_heap, weight_bytes

LAYER = 32 * 64 + 32 * 32 + 32 * 96 + 48 * 32  # [q; k; v], the projection, [gate; up], down
BODY, PADDED = 2 * LAYER, 96
NORMS = 5 * 32


def configured(**changes):
    values = tiny_config().model_dump(mode="json")
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(values[key], dict) else value
    return parse_config(values)


def test_weights_that_a_token_meets():
    assert weights_per_token(tiny_config().model, VOCABULARY) == (BODY, 32 * VOCABULARY)
    assert BODY == 15_360


def test_a_step_of_text():
    """100 positions, 40 labels: 6 FLOPs a weight; the head only where a label is scored."""
    figures = {"tokens": 0.0, "prompt_tokens": 0.0, "scored_tokens": 0.0}
    spent = step_account(tiny_config(), VOCABULARY, 100, 40, figures)
    assert spent == Account(100, 40, 0, 0, 6 * (BODY * 100 + 2880 * 40))


def test_a_step_of_episodes():
    """Further 2 FLOPs a weight for each sampled, read and scored token; the head not for those that were only read."""
    figures = {"tokens": 30.0, "prompt_tokens": 20.0, "scored_tokens": 50.0, "reward": 0.5}
    spent = step_account(tiny_config(), VOCABULARY, 100, 40, figures)
    flops = 6 * (BODY * 100 + 2880 * 40) + 2 * (BODY * (30 + 20 + 50) + 2880 * (30 + 50))
    assert spent == Account(100, 40, 30, 50, flops)
    twice = step_account(tiny_config(), VOCABULARY, 100, 40, figures, passes=2)
    assert twice.flops - flops == 6 * (BODY * 100 + 2880 * 40)
    assert twice.update_tokens == 100


def test_accounts_add_up():
    assert Account(1, 2, 3, 4, 5.5).add(Account(10, 20, 30, 40, 0.25)) == Account(11, 22, 33, 44, 5.75)
    assert Account().add(Account(1, 2, 3, 4, 5.0)) == Account(1, 2, 3, 4, 5.0)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_real_model(tied):
    config = tiny_config(adapter={"rank": 3}, tie_embeddings=tied)
    with one_rank():
        _, policy = build(config)
        count = sum(parameter.numel() for parameter in policy.gpt.parameters())
    assert base_parameters(config, PADDED) == BODY + NORMS + PADDED * 32 * (1 if tied else 2)
    assert adapter_parameters(config) == 2 * 3 * ((32 + 64) + (32 + 32) + (32 + 96) + (48 + 32))
    assert base_parameters(config, PADDED) + adapter_parameters(config) == count
    assert adapter_parameters(tiny_config()) == 0


WEIGHTS = BODY + NORMS + PADDED * 32  # 18,592


def sizes(config, dtype_bytes=4, data_size=1):
    return dict(memory_rows(config, PADDED, dtype_bytes, data_size))


def shown(count):
    return f"{count / 1e6:,.2f} MB"


def test_memory_of_a_plain_run():
    """Float32: weights and gradients 4 bytes, AdamW's moments 8. Bfloat16: weights 2, and master weights 4 on top."""
    assert sizes(tiny_config()) == {
        "memory a rank, weights": shown(4 * WEIGHTS),
        "memory a rank, gradients": shown(4 * WEIGHTS),
        "memory a rank, optimizer": shown(8 * WEIGHTS),
        "memory a rank, in all": shown(16 * WEIGHTS),
    }
    assert sizes(tiny_config(), dtype_bytes=2)["memory a rank, in all"] == shown((2 + 4 + 12) * WEIGHTS)


def test_memory_of_several_ranks():
    """Two data-parallel ranks share the moments where the optimizer is distributed; tensor ranks share everything."""
    assert sizes(tiny_config(), data_size=2)["memory a rank, optimizer"] == shown(4 * WEIGHTS)
    whole = tiny_config({"distributed_optimizer": False})
    assert sizes(whole, data_size=2)["memory a rank, optimizer"] == shown(8 * WEIGHTS)
    assert sizes(tiny_config({"tensor": 2}))["memory a rank, in all"] == shown(8 * WEIGHTS)


def test_memory_of_snapshots():
    """Copies are kept as the weights are, averages in float32, a pool several times."""
    snapshots = {"start": {}, "mean": {"update": "ema"}, "past": {"update": "pool", "keep": 3}}
    found = sizes(configured(snapshots=snapshots), dtype_bytes=2)
    assert found["memory a rank, snapshot start"] == shown(2 * WEIGHTS)
    assert found["memory a rank, snapshot mean"] == shown(4 * WEIGHTS)
    assert found["memory a rank, snapshot past"] == shown(6 * WEIGHTS)
    assert found["memory a rank, in all"] == shown((18 + 12) * WEIGHTS)


def test_memory_of_a_bilevel_run():
    """The shadow and its moments, and in a step its gradient and the weights' own set aside; adapters everywhere."""
    objectives = tiny_config().model_dump(mode="json")["objectives"]
    objectives["play"]["source"] = {"name": "episodes"}
    changes = {
        "objectives": objectives,
        "parallel": {"distributed_optimizer": False},
        "model": {"adapter": {"rank": 3}},
    }
    for meta, copies in ((True, 5), (False, 0)):
        values = configured(**changes).model_dump(mode="json")
        config = parse_config(values | {"bilevel": {"upper": "text", "lower": "play", "meta": meta}})
        trained = WEIGHTS + adapter_parameters(config)
        assert sizes(config)["memory a rank, in all"] == shown((16 + 4 * copies) * trained)


def test_bytes_of_a_weight_and_their_names():
    assert weight_bytes(configured(device={"dtype": "bfloat16"})) == 2
    assert weight_bytes(configured()) == 4
    assert [megabytes(size) for size in (0, 1.5e6, 999e6, 2.5e9)] == ["0.00 MB", "1.50 MB", "999.00 MB", "2.50 GB"]


def test_a_dry_run_shows_what_each_rank_keeps_in_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = write_run(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["train", str(path), "--dry-run"])
    assert not end.value.code
    shown = capsys.readouterr().out
    config = load_config(path)
    rows = memory_rows(config, config.model.padded_vocabulary(400), 4, 1)
    assert len(rows) == 3 + len(config.snapshots) + 1
    for what, size in rows:
        assert [line for line in shown.splitlines() if what in line and size in line], (what, size)
    parameters = base_parameters(config, config.model.padded_vocabulary(400)) + adapter_parameters(config)
    assert f"{parameters:,}" in shown
    assert not (tmp_path / "run").exists()


def test_the_collector_passes_over_a_settled_heap():
    with settled_heap():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
