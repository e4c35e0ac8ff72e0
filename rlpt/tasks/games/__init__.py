"""Games of moves by seats; the best move in a position is a task."""

from rlpt.tasks.games import nim as nim
from rlpt.tasks.games import open_spiel as open_spiel
from rlpt.tasks.games import opponents as opponents
from rlpt.tasks.games import tic_tac_toe as tic_tac_toe
