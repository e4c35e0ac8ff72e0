"""The policy: when it asks for attention that is the sampler's to the last bit."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny_model import build, random_batch, tiny_config

from rlpt.models.attention import Layout
from rlpt.training.passes import Pass


@pytest.fixture(scope="module")
def policy(rank):
    return build(tiny_config(init_std=0.3))[1]


@pytest.fixture
def asked(policy, monkeypatch):
    """What layouts are asked for."""
    found, make = [], Layout.of

    def of(*arguments, exact=False, **options):
        found.append(exact)
        return make(*arguments, exact=exact, **options)

    monkeypatch.setattr(Layout, "of", staticmethod(of))
    return found


def test_scores_and_sampled_rows_are_exact_and_text_is_not(policy, asked):
    text = random_batch("text", 1, 0.5)
    play = replace(text, objective="play", behavior_logprobs=torch.zeros(text.tokens.shape))
    assert (text.is_sampled, play.is_sampled) == (False, True)
    policy.forward(text)
    policy.forward(play)
    policy.score(text)
    cpu = torch.device("cpu")
    for parts in ([text], [text, text], [text, play], [play]):
        policy.forward(Pass.of(parts, cpu))
    assert asked == [False, True, True, False, False, True, True]
