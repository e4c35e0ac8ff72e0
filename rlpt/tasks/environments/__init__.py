"""Tasks of several turns."""

from rlpt.tasks.environments import calculator as calculator
from rlpt.tasks.environments import chain as chain
from rlpt.tasks.environments import composition as composition
from rlpt.tasks.environments import grid_world as grid_world
from rlpt.tasks.environments import mastermind as mastermind
from rlpt.tasks.environments import memory as memory
