"""`rlpt bench overlap` at a size that takes a second."""

import json

import pytest
from helpers.tiny_model import one_rank

from rlpt.bench.generation import Shape
from rlpt.bench.overlap import AFTER, Steps, Workload, main

SHAPE = Shape(
    num_layers=2, hidden_size=32, num_attention_heads=2, ffn_hidden_size=64, vocab_size=64, sequence_length=48
)
WORKLOAD = Workload(groups=3, samples=4, prompt=8, mean=6.0, longest=20, rows=2, microbatches=3)


def test_figures_of_every_share_are_measured_and_written(tmp_path, capsys):
    with one_rank():
        main(WORKLOAD, SHAPE, [0.5], 2, "cpu", 1, tmp_path / "overlap.json")
    figures = json.loads((tmp_path / "overlap.json").read_text())
    names = [AFTER, "beside its last 50% of rows"]
    assert list(figures["contenders"]) == names
    assert [figures["contenders"][name]["passes_beside"] for name in names] == [0.0, 1.0]
    for figure in figures["contenders"].values():
        assert 0 < figure["utilisation"]["smallest"] <= figure["utilisation"]["median"]
    assert figures["contenders"][AFTER]["times_as_fast"]["median"] == 1.0
    assert "utilisation" in capsys.readouterr().out


def test_a_step_is_counted_with_text_and_with_what_is_sampled():
    with one_rank():
        flops = Steps(WORKLOAD, SHAPE, "cpu", 1).flops(SHAPE)
    text = 3 * 2 * SHAPE.weights * 3 * 2 * 48
    assert flops > text
    assert flops == pytest.approx(text + 4 * 2 * SHAPE.weights * (12 * 6 + 3 * 6), rel=0.5)
