"""How log-probs become a loss. One file an algorithm; one import line registers it."""

from rlpt.algorithms import (
    cispo,
    dapo,
    distill,
    dr_grpo,
    grpo,
    gspo,
    maxrl,
    next_token,
    ppo,
    rae,
    reinforce,
    reinforce_plus_plus,
    rloo,
    rlp,
    task_role,
    value_regression,
)

__all__ = [
    "cispo",
    "dapo",
    "distill",
    "dr_grpo",
    "grpo",
    "gspo",
    "maxrl",
    "next_token",
    "ppo",
    "rae",
    "reinforce",
    "reinforce_plus_plus",
    "rloo",
    "rlp",
    "task_role",
    "value_regression",
]
