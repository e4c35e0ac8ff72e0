"""Data sets of the reasoning-gym library (`pip install 'rlpt[gym]'`) as tasks, scored in confined processes."""

from rlpt.tasks.reasoning_gym import data_set as data_set
