"""Losses of a tiny run against those in losses.json: a change of numbers is a choice, never an accident.

Twelve steps in float32 on one rank over fixed batches, by next_token and by grpo with every option that its losses
depend on written out. 1e-4 leaves room for another CPU's rounding; a change of formula moves a loss by far more. After
a change on purpose: `python tests/golden/test_golden_losses.py --write`, and say why in the commit.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).with_name("losses.json")
sys.path.insert(0, str(FILE.parents[1]))
STEPS, TOLERANCE = 12, 1e-4
OPTIONS = {"normalizer": "token", "clip_low": 0.2, "clip_high": 0.28, "entropy_bonus": 0.01}
ALGORITHMS = {"text": {"name": "next_token"}, "play": {"name": "grpo", **OPTIONS}}
DENSITIES = {"text": (0.9, 0.2, 0.5, 0.05), "play": (0.3, 0.8, 0.0, 0.6)}
VOCABULARY, ROWS, LENGTH = 90, 3, 24


def fixed_batch(objective, key, density):
    """Rows of two segments with a random loss mask; `play` rows carry advantages and a legal set."""
    from rlpt.batch import Batch

    rng = np.random.default_rng([key, len(objective)])
    shape = (ROWS, LENGTH)
    tokens = torch.from_numpy(rng.integers(0, VOCABULARY, (ROWS, LENGTH + 1)))
    cut = int(rng.integers(5, LENGTH - 5))
    batch = Batch(
        objective=objective,
        tokens=tokens[:, :-1].contiguous(),
        labels=tokens[:, 1:].contiguous(),
        positions=torch.arange(LENGTH).expand(shape).contiguous(),
        loss_mask=torch.from_numpy(rng.random(shape) < density),
        segments=(torch.arange(LENGTH) >= cut).long().expand(shape).contiguous(),
    )
    if objective == "text":
        return batch
    legal = torch.ones(2, VOCABULARY, dtype=torch.bool)
    legal[1, ::7] = False
    return replace(
        batch,
        advantages=torch.from_numpy(rng.standard_normal(shape).astype(np.float32)),
        behavior_logprobs=torch.from_numpy((-3 - rng.random(shape)).astype(np.float32)),
        legal_table=legal,
        legal_index=legal[1][batch.labels].long(),
        temperature=1.3,
    )


def losses(tie):
    """[text loss, play loss, gradient norm] of each step, with a tied or an untied head."""
    from helpers.tiny_model import build, tiny_config

    from rlpt.training.optimizer import Optimizer, wrap_data_parallel
    from rlpt.training.runtime import create_algorithms
    from rlpt.training.schedule import Schedule
    from rlpt.training.step import TrainStep

    config = tiny_config(algorithms=ALGORITHMS, tie_embeddings=tie)
    _, policy = build(config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    step = TrainStep(policy, model, Optimizer(config, model, policy.device), create_algorithms(config))
    rows = []
    for number in range(STEPS):
        batches = {
            name: [fixed_batch(name, 100 * number + i, density) for i, density in enumerate(densities)]
            for name, densities in DENSITIES.items()
        }
        result = step(batches, Schedule(config).plan(number, {}))
        rows.append([result.losses["text"], result.losses["play"], result.gradient_norm])
    return rows


def present():
    from helpers.tiny_model import one_rank

    with one_rank():
        return {"steps": losses(tie=True), "untied": losses(tie=False)}


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
    FILE.write_text(json.dumps(present(), indent=1) + "\n")
