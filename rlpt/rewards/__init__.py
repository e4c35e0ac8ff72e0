"""How an episode is scored: parts of a weighted rubric. One line registers one."""

from rlpt.rewards import correct as correct
from rlpt.rewards import exploration as exploration
from rlpt.rewards import format as format
from rlpt.rewards import game_return as game_return
from rlpt.rewards import information_gain as information_gain
from rlpt.rewards import judge as judge
from rlpt.rewards import learnability as learnability
from rlpt.rewards import length as length
from rlpt.rewards import novelty as novelty
from rlpt.rewards import process as process
from rlpt.rewards import shaping as shaping
