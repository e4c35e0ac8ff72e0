"""Measurements against peers: `rlpt bench NAME`. Each runs its contenders side by side, in interleaved pairs."""
