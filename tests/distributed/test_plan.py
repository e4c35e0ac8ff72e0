"""A plan beside what real steps allocate, on one launch of two ranks; and the doctor on the same number of ranks."""

import json

import pytest
import torch
from allocated import LAYOUTS, ROWS, planned_config
from helpers.launches import ROOT, ranks, run, start
from helpers.tiny_model import VOCABULARY, one_rank

from rlpt.planning.stages import measure_stages

WORLD = 2
CLOSE = 0.15
FIGURES = ("weights", "gradients", "optimizer")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Layout -> what each rank allocated."""
    folder = tmp_path_factory.mktemp("allocated")
    code, output = run(
        [*ranks(WORLD), ROOT / "tests" / "distributed" / "allocated.py", folder / "seen"], folder / "log"
    )
    assert code == 0, output
    return json.loads((folder / "seen").read_text())


@pytest.fixture(scope="module")
def planned():
    """Layout -> its stages, of which nothing was allocated."""
    found = {}
    with one_rank():
        for name, (parallel, recompute) in LAYOUTS.items():
            config = planned_config(parallel, recompute)
            padded = config.model.padded_vocabulary(VOCABULARY)
            found[name] = measure_stages(config, padded, WORLD, torch.float32, [ROWS])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_rank_holds_is_what_was_planned(real, planned, layout):
    for rank in real[layout]:
        state = planned[layout][rank["stage"]].state
        assert state.parameters == rank["parameters"]
        for figure in FIGURES:
            assert getattr(state, figure) == pytest.approx(rank[figure], rel=CLOSE), figure
            assert rank[figure] > 10_000


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_backward_needs_is_what_was_planned(real, planned, layout):
    for rank in real[layout]:
        footprint = planned[layout][rank["stage"]].footprints[ROWS]
        assert footprint.saved == pytest.approx(rank["saved"], rel=CLOSE)
        assert footprint.peak > footprint.saved > 10_000


def test_the_doctor_tries_every_group_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    launch = start(
        [*ranks(WORLD), "-m", "rlpt.doctor", "configs/quickstart.yaml", f"run_dir={tmp_path}"], tmp_path / "log"
    )
    launch.finish()
    said = launch.output
    assert "tensor axis" in said
    assert "GB/s a rank" in said
    assert "world axis" in said
    assert launch.left_behind() == []
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
