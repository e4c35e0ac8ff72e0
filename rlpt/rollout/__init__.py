"""The border between torch-free self-play and tensors: generator, sampling, packing, and the sources of episodes."""

from rlpt.rollout import demonstrations, evidence, source, step_values

__all__ = ["demonstrations", "evidence", "source", "step_values"]
