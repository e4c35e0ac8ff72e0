"""The border between torch-free self-play and tensors: generator, sampling, packing, the episode source."""
