"""How log-probs become a loss. One file an algorithm; one import line registers it."""

from rlpt.algorithms import grpo, next_token, reinforce

__all__ = ["grpo", "next_token", "reinforce"]
