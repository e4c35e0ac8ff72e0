"""The slotted cache and laid-out weights, with the tiny model: what a row reads is its own, wherever it stands."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_model import VOCABULARY, lone_policy

from rlpt.models.packed_linear import can_pack, linear
from rlpt.rollout.generator import LONG, PolicyGenerator
from rlpt.types import SamplingParams


@pytest.fixture(scope="module")
def policy():
    with lone_policy() as policy:
        yield policy


def text(length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(1, VOCABULARY, length))


@torch.no_grad()
def logits_after(policy, tokens):
    """By one prefill of the text alone."""
    return policy.decoder().prefill(tokens[None], torch.tensor([len(tokens)]))[1][0]


@torch.no_grad()
def test_rows_of_other_lengths_beside_it_leave_a_row_as_it_is(policy):
    texts = [text(n, seed=n) for n in (3, 17, 9)]
    padded = torch.stack([F.pad(one, (0, 17 - len(one)), value=5) for one in texts])
    lengths = torch.tensor([len(one) for one in texts])
    state, logits = policy.decoder(is_long=True).prefill(padded, lengths, capacity=20)
    for row, one in enumerate(texts):
        assert torch.allclose(logits[row], logits_after(policy, one), atol=1e-5)
    nexts = torch.tensor([7, 8, 9])
    logits = state.step(nexts, lengths, 17)
    for row, one in enumerate(texts):
        assert torch.allclose(logits[row], logits_after(policy, torch.cat([one, nexts[row : row + 1]])), atol=1e-5)
    assert logits.std() > 0.3


@torch.no_grad()
def test_a_slot_forgets_the_row_that_it_held(policy):
    """A short row in a slot where a long one stood draws what it draws in a new cache."""
    decoder = policy.decoder()
    state = decoder.empty(2, 20)
    for length in (17, 4):
        one = text(length, seed=length)
        source, _ = decoder.prefill(one[None], torch.tensor([length]))
        state.place(torch.tensor([1]), source, torch.tensor([0]))
    state.move(torch.tensor([0]), torch.tensor([1]), 4)
    logits = state.step(torch.tensor([7]), torch.tensor([4]), 4)
    assert torch.allclose(logits[0], logits_after(policy, torch.cat([text(4, seed=4), torch.tensor([7])])), atol=1e-5)


@pytest.mark.parametrize("limit", [LONG - 1, 3 * LONG])
@pytest.mark.parametrize("max_rows", [1, 4, 13])
def test_slots_change_nothing(policy, limit, max_rows):
    """Thirty rows of five prompts in any number of slots, and each row alone."""
    prompts = [text(2 + 3 * (at % 5), seed=at % 5).tolist() for at in range(30)]
    params = [SamplingParams(limit, stop=tuple(range(60, 66)), seed=3)] * 30
    found = PolicyGenerator(policy, max_rows)(prompts, params, range(30))
    for key, one in enumerate(found):
        [alone] = PolicyGenerator(policy)(prompts[key : key + 1], params[:1], [key])
        assert one.token_ids.tolist() == alone.token_ids.tolist()
        assert np.abs(one.logprobs - alone.logprobs).max() < 1e-5
        assert np.abs(one.certainty - alone.certainty).max() < 1e-5
    assert len({len(one.token_ids) for one in found}) > 3


def test_samples_of_a_prompt_read_beside_a_longer_one_can_wait(policy):
    prompts = [text(9).tolist()] * 2 + [text(4).tolist()] * 5
    params = [SamplingParams(6)] * len(prompts)
    found, wide = (PolicyGenerator(policy, slots)(prompts, params, range(len(prompts))) for slots in (3, 7))
    assert [one.token_ids.tolist() for one in found] == [one.token_ids.tolist() for one in wide]


@pytest.mark.parametrize("rows", [1, 5, 64, 300])
def test_a_laid_out_weight_multiplies_as_the_weight_does(rows):
    torch.manual_seed(rows)
    weight, x = torch.randn(48, 32), torch.randn(rows, 3, 32)
    assert can_pack(weight)
    ours, plain = linear(weight, packed=True)(x), F.linear(x, weight)
    assert (ours - plain).abs().max() < 1e-5 * plain.abs().max()


def test_a_dtype_that_can_not_be_laid_out_is_multiplied_as_it_is():
    weight = torch.randn(4, 3, dtype=torch.float64)
    assert not can_pack(weight)
    assert torch.equal(linear(weight, packed=True)(weight[:, :3]), F.linear(weight[:, :3], weight))
