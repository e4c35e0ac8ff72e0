"""Who plays and who is compared with whom. One line registers one form of self-play."""

from rlpt.selfplay import converse as converse
from rlpt.selfplay import duel as duel
from rlpt.selfplay import predict as predict
from rlpt.selfplay import propose as propose
from rlpt.selfplay import solve as solve
from rlpt.selfplay import think as think
