"""What is reasoned about: families with oracle, graded verifier and levels, without torch.

Each folder is a field, each file in it a family; a line in the folder's `__init__` registers one.
"""

from rlpt.tasks import algebra as algebra
from rlpt.tasks import arithmetic as arithmetic
from rlpt.tasks import environments as environments
from rlpt.tasks import esolangs as esolangs
from rlpt.tasks import games as games
from rlpt.tasks import graphs as graphs
from rlpt.tasks import lists as lists
from rlpt.tasks import logic as logic
from rlpt.tasks import planning as planning
from rlpt.tasks import programs as programs
from rlpt.tasks import reasoning_gym as reasoning_gym
from rlpt.tasks import sequences as sequences
from rlpt.tasks import tracking as tracking
