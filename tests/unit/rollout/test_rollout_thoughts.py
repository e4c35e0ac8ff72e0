"""Reinforcement by information gain moves thoughts alone: no gradient reaches the text that they are judged by."""

import numpy as np
import torch
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

from rlpt.algorithms.rlp import RLP
from rlpt.batch import Scores
from rlpt.rollout.packing import RowShape, pack
from rlpt.selfplay.base import Actor
from rlpt.selfplay.think import Think
from rlpt.types import Problem


def test_gradient_is_exactly_zero_off_the_thoughts():
    tokenizer = CharacterTokenizer()
    context, future = tokenizer.encode("the parity of 1101 is "), tokenizer.encode("odd.")
    meta = {"context": tuple(context), "future": tuple(future)}
    form = Think(group_size=6, max_thought=4, characters="01", horizon=3)
    episodes = form.play(
        [Problem("passage", 1, 0, "", "", meta)], {}, Actor(RandomGenerator(), tokenizer), keys=[7], policy_step=0
    )
    trajectories = [episode.trajectories[0] for episode in episodes]
    for index, trajectory in enumerate(trajectories):
        trajectory.advantage = float(index - 2.5)
    (batch,) = pack(trajectories, "think", 1, RowShape(48, tokenizer.vocab_size, tokenizer.pad_id))
    noise = torch.Generator().manual_seed(1)
    logprobs = (-3 * torch.rand(batch.labels.shape, generator=noise)).requires_grad_()
    terms = RLP()(Scores(logprobs, torch.ones_like(logprobs)), batch)
    terms.total.backward()
    assert not logprobs.grad[~batch.loss_mask].any()
    assert (logprobs.grad[batch.loss_mask] != 0).any()
    assert int(batch.loss_mask.sum()) == sum(int(one.action_mask.sum()) for one in trajectories)
    evidence = np.concatenate([one.token_ids[one.evidence_mask] for one in trajectories])
    assert evidence.tolist() == future[:3] * 6
    trained = batch.labels[batch.loss_mask].tolist()
    thought = set(tokenizer.encode("01")) | {tokenizer.mark_id("<|answer|>")}
    assert set(trained) <= thought
