"""Losses of a tiny run against those in losses.json: a change of numbers is a choice, never an accident.

Twelve steps in float32 on one rank over fixed batches (tests/distributed/layouts.py). 1e-4 leaves room for another
CPU's rounding; a change of formula moves a loss by far more. After a change on purpose:
`python tests/golden/test_golden_losses.py --write`, and say why in the commit.
"""

import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("losses.json")
STEPS, TOLERANCE = 12, 1e-4


def present() -> dict[str, list[list[float]]]:
    """[text loss, play loss, gradient norm] of each step, with a tied and an untied head."""
    from helpers.launches import layout_results

    single = layout_results(1)["single"]
    return {name: [row[:3] for row in single[name][:STEPS]] for name in ("steps", "untied")}


def test_losses_are_the_golden_ones():
    golden = json.loads(FILE.read_text())
    found = present()
    assert golden.keys() == found.keys()
    for name, rows in golden.items():
        assert np.shape(rows) == (STEPS, 3)
        np.testing.assert_allclose(found[name], rows, rtol=0, atol=TOLERANCE, err_msg=name)
        assert np.ptp(rows, axis=0).min() > 10 * TOLERANCE, "losses that stand still prove nothing"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/golden/test_golden_losses.py --write")
    sys.path.insert(0, str(FILE.parents[1]))
    FILE.write_text(json.dumps(present(), indent=1) + "\n")
