"""Plans: formulas beside torch's own count, what does not fit, sizes of the recipes, the sweep."""

import json
from pathlib import Path

import pytest
import torch
from helpers.tiny_model import LENGTH, VOCABULARY, build, one_rank, random_batch, tiny_config
from torch.utils.flop_counter import FlopCounterMode

from rlpt.config import load_config
from rlpt.distributed.pretended import pretended_rank
from rlpt.errors import ConfigError
from rlpt.kernels.one_pass_sizes import one_pass_bytes
from rlpt.models.footprint import microbatch_footprint
from rlpt.models.gpt import assemble_gpt
from rlpt.models.policy import Policy
from rlpt.planning.advice import room
from rlpt.planning.estimate import HEAD_PASSES
from rlpt.planning.hardware import find_hardware
from rlpt.planning.layout import plan_layout
from rlpt.planning.report import comment
from rlpt.planning.sweep import sweep
from rlpt.training.accounting import UPDATE, weights_per_token

ROOT = Path(__file__).parents[2]
SIZES = {  # recipe -> ranks, vocabulary, parameters in billions
    "125m": (1, 50_304, 0.114),
    "1.3b": (8, 128_256, 1.64),
    "7b": (64, 32_000, 6.74),
    "70b": (1024, 128_256, 70.6),
}


@pytest.fixture(autouse=True)
def as_it_was():
    with one_rank():
        yield


def size(name: str, *overrides: str):
    return load_config(ROOT / "configs" / "sizes" / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_fits_its_cards_and_says_what_its_plan_says(name):
    ranks, vocabulary, billions = SIZES[name]
    plan = plan_layout(size(name), ranks, find_hardware("h100"), vocabulary)
    assert plan.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert plan.fits, plan.advice
    assert plan.fullest.total > 1e9
    written = (ROOT / "configs" / "sizes" / f"{name}.yaml").read_text()
    assert comment(plan) in written
    assert json.loads(json.dumps(plan.as_json()))["fits"] is True


def test_parameters_of_all_stages_and_ranks_are_the_model():
    plan = plan_layout(size("70b"), 1024, find_hardware("h100"), 128_256)
    norms = (2 * 80 + 1) * 8192  # whole on each of the eight tensor ranks
    assert sum(stage.state.parameters for stage in plan.stages) * 8 - 7 * norms == plan.parameters


def test_what_does_not_fit_names_the_knob():
    plan = plan_layout(size("70b", "model.recompute=none", "parallel.data=1024", "parallel.tensor=1",
                            "parallel.pipeline=1", "parallel.sequence_parallel=false"),
                       1024, find_hardware("h100"), 128_256)  # fmt: skip
    assert not plan.fits
    assert any("parallel.tensor" in line for line in plan.advice)
    assert any("model.recompute" in line for line in plan.advice)
    assert plan.fullest.total > room(plan.hardware)


def test_a_gpu_holds_the_gradient_in_the_logits():
    """2 GiB of it and a chunk's logits, once the rows are that many; less for a few, and on the last stage alone."""
    config = size("125m")
    card, cores = (plan_layout(config, 1, find_hardware(name), 50_304).memory[0] for name in ("h100", "cpu"))
    rows, columns = config.batch.micro_batch_size * config.batch.sequence_length, 50_304
    assert one_pass_bytes(rows, columns, 2) == columns * (4 * 4608 + 2 * min(rows, 21_345))
    assert card.workspace > one_pass_bytes(rows, columns, 2)
    assert cores.workspace < card.workspace
    assert one_pass_bytes(100, columns, 2) == 600 * columns
    stages = plan_layout(size("70b"), 1024, find_hardware("h100"), 128_256).memory
    assert stages[-1].workspace - stages[-2].workspace > one_pass_bytes(1024, 128_256 // 8, 2)


def test_text_beside_a_play_needs_its_memory_there():
    apart, beside = (
        plan_layout(size("125m", f"batch.overlap={share}"), 1, find_hardware("h100"), 50_304).memory[0]
        for share in (0, 0.5)
    )
    added = beside.rollout - apart.rollout
    assert beside.activations < added <= beside.activations + beside.workspace
    assert (beside.activations, beside.weights) == (apart.activations, apart.weights)


def test_a_vocabulary_that_nothing_tells_is_an_error():
    with pytest.raises(ConfigError, match="--vocabulary"):
        plan_layout(size("125m"), 1, find_hardware("h100"))
    with pytest.raises(ConfigError, match="did you mean 'h200'"):
        find_hardware("h20")


def test_flops_of_the_layers_are_what_torch_counts():
    config = tiny_config()
    padded = config.model.padded_vocabulary(VOCABULARY)
    with pretended_rank(config, 0, 1, torch.float32) as (device, mesh):
        policy = Policy(assemble_gpt(config, padded, mesh, device), mesh, device, padded)
        with FlopCounterMode(display=False) as counter:
            microbatch_footprint(policy, 2, LENGTH)
    body, head = weights_per_token(config.model, padded)
    # The head's backward computes its logits again (2), and torch does not count the product in place that is the
    # gradient of its weight (2).
    expected = 2 * LENGTH * (UPDATE * body + (HEAD_PASSES - 2) * head)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("recompute", ["mlp"])
def test_what_is_computed_again_leaves_the_gradient_and_keeps_less(recompute):
    gradients, saved = [], []
    for how in ("none", recompute):
        _, policy = build(tiny_config(recompute=how))
        batch = random_batch("text", 1, 0.9)
        scores = policy.scores(policy.forward(batch), batch)
        scores.logprobs.sum().backward()
        gradients.append(torch.cat([one.grad.flatten() for one in policy.gpt.parameters()]))
        saved.append(microbatch_footprint(policy, 3, LENGTH).saved)
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-7)
    assert gradients[0].abs().max() > 1e-3
    assert saved[1] < 0.8 * saved[0]


def test_a_sweep_prints_measured_layouts_that_fit_fastest_first():
    config = size("125m", "objectives.play=null", "evaluation.tasks=[]")
    found, looked_at = sweep(config, 4, find_hardware("h100"), 50_304, best=2)
    assert looked_at > len(found) == 2
    assert all(plan.fits for plan in found)
    times = [plan.seconds.total for plan in found]
    assert times == sorted(times)
    assert {plan.data * plan.layout["parallel.tensor"] * plan.layout["parallel.pipeline"] for plan in found} == {4}
