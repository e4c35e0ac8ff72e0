"""Plans of moves: towers, grids, tiles."""

from rlpt.tasks.planning import grid_path as grid_path
from rlpt.tasks.planning import hanoi as hanoi
from rlpt.tasks.planning import sliding_tiles as sliding_tiles
