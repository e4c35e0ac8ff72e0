"""The border between torch-free self-play and tensors: generator, sampling, packing, the episode source."""

from rlpt.rollout.source import EpisodeOptions as EpisodeOptions
