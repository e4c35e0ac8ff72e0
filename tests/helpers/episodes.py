"""Played episodes from marked text, without a generator."""

import numpy as np
from helpers.tokenizer import CharacterTokenizer

from rlpt.template import encode_marked
from rlpt.types import Episode, Problem, Trajectory

TOKENIZER = CharacterTokenizer()
PROBLEM = Problem("reverse", 1, 1, "reverse 12", "21")


def trajectory_of(*pieces, role="solver", peers=1, truncated=False, well_formed=1.0, evidence=""):
    """Marked texts, by turns given and written by the policy, then given text that a thought is judged by."""
    ids = [encode_marked(TOKENIZER, piece) for piece in (*pieces, evidence)]
    origin = np.repeat(np.arange(len(ids)), [len(piece) for piece in ids])
    return Trajectory(
        role=role,
        peers=peers,
        token_ids=np.array([token for piece in ids for token in piece], np.int64),
        action_mask=(origin % 2 == 1) & (origin < len(pieces)),
        logprobs=np.zeros(len(origin), np.float32),
        evidence_mask=origin == len(pieces) if evidence else None,
        truncated=truncated,
        well_formed=well_formed,
    )


def thinking(written, outcome=0.0, problem=PROBLEM, **options):
    """The episode of a policy that wrote `written` after the think mark."""
    trajectory = trajectory_of(f"<|prompt|>{problem.prompt}<|think|>", written, **options)
    return Episode(problem, [trajectory], {trajectory.role: outcome}, "<|think|>" + written)


def answering(written, outcome=0.0, problem=PROBLEM, **options):
    """The episode of a policy that was asked for the answer at once."""
    trajectory = trajectory_of(f"<|prompt|>{problem.prompt}<|answer|>", written, **options)
    return Episode(problem, [trajectory], {trajectory.role: outcome}, "<|answer|>" + written)


def values(reward, episodes, context):
    """What a PlayReward says of episodes of one trajectory each."""
    return [value for (value,) in reward.over(episodes, context)]
