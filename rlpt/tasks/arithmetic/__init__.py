"""Arithmetic on written numbers."""

from rlpt.tasks.arithmetic import addition as addition
from rlpt.tasks.arithmetic import countdown as countdown
from rlpt.tasks.arithmetic import expression as expression
from rlpt.tasks.arithmetic import modular_inverse as modular_inverse
from rlpt.tasks.arithmetic import multiplication as multiplication
from rlpt.tasks.arithmetic import subtraction as subtraction
