"""Vectors and linear equations."""

from rlpt.tasks.algebra import linear_equations as linear_equations
from rlpt.tasks.algebra import orthogonality as orthogonality
