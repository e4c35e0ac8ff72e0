"""A bit that changes in one replica's memory is found at the next comparison, and the restart heals it."""

import json

import pytest
from helpers.faults import FLIPS, remains


@pytest.mark.parametrize("point", FLIPS)
def test_a_flipped_bit_is_found_before_it_is_saved_and_healed_by_a_restart(flipped, point):
    """It changes within the third step, after the update, or within the fourth, before it. Comparisons are
    made in the second, fourth and sixth steps, and before the saves of the third and sixth."""
    out, name = flipped[point], point.replace(" ", "_")
    logs = "\n".join(path.read_text() for path in out.glob(f"{name}.*.log"))
    ends = json.loads((out / f"{name}.json").read_text())["ends"]
    assert 75 in ends[0], logs
    assert ends[1:] == [[0, 0]], logs
    step = 4 if FLIPS[point] else 3
    assert f"error: step {step}: data-parallel replicas differ: replica 0 of 2 (host " in logs
    assert "replica 1 of 2 (host " in logs
    assert "decoder.final_layernorm.weight" in logs
    assert remains(out / name) == remains(out / "none")
