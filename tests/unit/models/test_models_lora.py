"""Adapters on one rank: what they add, when they move, what is merged. Tensor ranks: tests/distributed."""

import pytest
import torch
from helpers.tiny_model import build, random_batch, tiny_config, wake
from torch import nn

from rlpt.models.decode import layer_weights
from rlpt.models.lora import is_adapter, merged_weight
from rlpt.training.optimizer import Optimizer, wrap_data_parallel

ADAPTER = {"rank": 3, "alpha": 6}
LINEARS = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")

pytestmark = pytest.mark.usefixtures("rank")


def adapted(**options):
    config = tiny_config(init_std=0.3, adapter=ADAPTER | options)
    return config, build(config)[1]


def linears(policy):
    return {
        f"{index}.{name}": layer.get_submodule(name)
        for index, layer in enumerate(policy.gpt.decoder.layers)
        for name in LINEARS
    }


def test_a_new_adapter_changes_nothing():
    batch = random_batch("text", 1, 0.5)
    plain = build(tiny_config(init_std=0.3))[1].score(batch).logprobs
    config, policy = adapted()
    assert torch.equal(policy.score(batch).logprobs, plain)
    wake(policy, config)
    assert (policy.score(batch).logprobs - plain).abs().max() > 0.1


def test_a_linear_with_its_adapter_by_hand():
    """y = W x + alpha / rank * B A x, with alpha / rank = 2."""
    config, policy = adapted()
    wake(policy, config)
    for linear in linears(policy).values():
        x = torch.randn(5, 2, linear.weight.shape[1], generator=torch.Generator().manual_seed(0))
        wanted = x @ (linear.weight + 2 * linear.adapter_b @ linear.adapter_a).T
        torch.testing.assert_close(linear(x)[0], wanted, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(wanted, x @ linear.weight.T, atol=0.1)


def test_merged_weights_are_the_model():
    batch = random_batch("text", 1, 0.5)
    config, policy = adapted()
    wake(policy, config)
    wanted = policy.score(batch).logprobs
    merged = {name: merged_weight(linear) for name, linear in linears(policy).items()}
    plain = build(tiny_config(init_std=0.3))[1]
    with torch.no_grad():
        for name, linear in linears(plain).items():
            assert not torch.equal(linear.weight, merged[name])
            linear.weight.copy_(merged[name])
    torch.testing.assert_close(plain.score(batch).logprobs, wanted, rtol=1e-5, atol=1e-5)


def test_without_an_adapter_the_weights_are_not_copied():
    layer = build(tiny_config())[1].gpt.decoder.layers[0]
    for weight, name in zip(layer_weights(layer), LINEARS):
        assert weight is layer.get_submodule(name).weight


def test_merging_sums_above_bfloat16():
    config, policy = adapted()
    wake(policy, config)
    linear = policy.gpt.decoder.layers[0].mlp.linear_fc2.bfloat16()
    weight, a, b = linear.weight, linear.adapter_a, linear.adapter_b
    merged = merged_weight(linear)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, (weight.float() + 2 * b.float() @ a.float()).bfloat16())
    assert not torch.equal(merged, weight + 2 * b @ a)


def test_names():
    _, policy = adapted()
    found = [name for name, _ in policy.gpt.named_parameters() if is_adapter(name)]
    assert len(found) == 2 * len(LINEARS) * 2
    assert all(name.startswith("decoder.layers.") for name in found)
    assert not is_adapter("embedding.word_embeddings.weight")
    assert not [name for name, _ in build(tiny_config())[1].gpt.named_parameters() if is_adapter(name)]


def moved(lr_scale):
    """How far one optimizer step with gradients of one moves (adapters, everything else)."""
    config, policy = adapted(lr_scale=lr_scale)
    wake(policy, config)
    before = {name: value.detach().clone() for name, value in policy.gpt.named_parameters()}
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    optimizer = Optimizer(config, model, policy.device)
    optimizer.zero_grad()
    for parameter in policy.gpt.parameters():
        if parameter.requires_grad:
            parameter.main_grad.fill_(1.0)
    optimizer.step(lr=0.01, weight_decay=0.0)
    deltas = {name: (before[name] - value).detach() for name, value in policy.gpt.named_parameters()}
    parts = [[d.flatten() for name, d in deltas.items() if is_adapter(name) == which] for which in (True, False)]
    return [torch.cat(part) for part in parts]


def test_adapters_have_a_learning_rate_of_their_own():
    """Adam's first step is lr * sign(gradient)."""
    for scale in (1.0, 0.25, 3.0):
        adapters, others = moved(scale)
        torch.testing.assert_close(adapters, torch.full_like(adapters, 0.01 * scale), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(others, torch.full_like(others, 0.01), rtol=1e-3, atol=1e-6)


def test_a_learning_rate_of_zero_freezes_them():
    adapters, others = moved(0)
    assert not adapters.any()
    assert others.all()
    _, policy = adapted(lr_scale=0)
    assert all(value.requires_grad != is_adapter(name) for name, value in policy.gpt.named_parameters())


def test_a_linear_of_torch_is_its_own_weight():
    linear = nn.Linear(2, 3)
    assert merged_weight(linear) is linear.weight
