"""Scalar heads: the map itself, and where the policy puts its numbers."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_model import LENGTH, build, random_batch, tiny_config, wake

from rlpt.models.heads import ScalarHead


def test_a_linear_map_with_a_bias_from_zero_on():
    head, rows = ScalarHead(3, torch.float32), torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    assert head(rows).tolist() == [0, 0]
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        head.bias.fill_(0.5)
    assert head(rows).tolist() == [321.5, 40.5]


def test_computes_above_bfloat16():
    head = ScalarHead(2, torch.bfloat16)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 1.0]]))
    value = head(torch.tensor([[256.0, 0.5]], dtype=torch.bfloat16))
    assert value.dtype == torch.float32
    assert value.item() == 256.5  # bfloat16 has no such number


@pytest.fixture(scope="module")
def policy(rank):
    config = tiny_config(init_std=0.3)
    policy = build(config, heads=["value", "process"])[1]
    assert policy.score(replace(random_batch("text", 1, 0.5), head="value")).values.abs().sum() == 0
    wake(policy, config)
    return policy


def test_values_of_the_states_before_the_labels(policy):
    batch = random_batch("text", 1, 0.5)
    hidden = policy.forward(batch).detach()  # [T, B, H]
    for name in ("value", "process"):
        scores = policy.score(replace(batch, head=name))
        head = policy.gpt.heads[name]
        wanted = (hidden.transpose(0, 1) @ head.weight[0] + head.bias).detach()
        assert scores.values.shape == batch.labels.shape
        torch.testing.assert_close(scores.values, wanted.masked_fill(~batch.loss_mask, 0))
        assert scores.values[batch.loss_mask].std() > 0.1
        assert torch.equal(scores.logprobs, policy.score(batch).logprobs)
    assert policy.score(batch).values is None


def test_a_head_that_is_not_there(policy):
    with pytest.raises(AssertionError, match=r"no head 'worth'; the model has \['process', 'value'\]"):
        policy.score(replace(random_batch("text", 1, 0.5), head="worth"))


def test_rows_without_a_loss_have_no_value(policy):
    batch = replace(random_batch("text", 1, 0.0), head="value")
    assert not batch.loss_mask.any()
    assert policy.score(batch).values.tolist() == [[0.0] * LENGTH] * 3


def test_its_gradient_reaches_the_hidden_states_and_itself(policy):
    """d/d bias of sum v is the number of loss tokens; d/d hidden of each is the weight."""
    batch = replace(random_batch("text", 1, 0.5), head="value")
    hidden = policy.forward(batch).detach().requires_grad_()
    head = policy.gpt.heads["value"]
    values = policy.scores(hidden, batch).values
    by_hidden, by_bias = torch.autograd.grad(values.sum(), [hidden, head.bias])
    assert by_bias.item() == batch.loss_mask.sum()
    torch.testing.assert_close(by_hidden.transpose(0, 1)[batch.loss_mask], head.weight.expand(by_bias.int().item(), -1))
    assert not by_hidden.transpose(0, 1)[~batch.loss_mask].any()


def test_heads_are_part_of_the_model(policy):
    names = {name for name, _ in policy.gpt.named_parameters() if name.startswith("heads.")}
    assert names == {f"heads.{name}.{part}" for name in ("value", "process") for part in ("weight", "bias")}
    with policy.device.megatron():
        assert names <= policy.gpt.sharded_state_dict().keys()
    assert not [name for name, _ in build(tiny_config())[1].gpt.named_parameters() if "heads" in name]


def test_a_head_that_learns_alone(policy):
    """The same values; the gradient of their sum reaches the bias as before, and the hidden states not at all."""
    batch = replace(random_batch("text", 1, 0.5), head="value")
    hidden = policy.forward(batch).detach().requires_grad_()
    head = policy.gpt.heads["value"]
    alone = policy.scores(hidden, replace(batch, head_alone=True)).values
    torch.testing.assert_close(alone, policy.scores(hidden, batch).values, rtol=0, atol=0)
    by_hidden, by_bias = torch.autograd.grad(alone.sum(), [hidden, head.bias], allow_unused=True)
    assert by_bias.item() == batch.loss_mask.sum()
    assert by_hidden is None
