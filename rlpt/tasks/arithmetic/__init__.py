"""Arithmetic on written numbers."""

from rlpt.tasks.arithmetic import addition as addition
from rlpt.tasks.arithmetic import countdown as countdown
