"""How an episode is scored: parts of a weighted rubric. One line registers one."""

from rlpt.rewards import correct as correct
from rlpt.rewards import format as format
