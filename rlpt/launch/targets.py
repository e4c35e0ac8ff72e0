"""All targets: a line each."""

from rlpt.launch import jobset, kubernetes, skypilot, slurm, torchrun, trainjob  # noqa: F401 (registers)
