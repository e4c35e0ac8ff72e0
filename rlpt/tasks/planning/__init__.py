"""Plans of moves: towers, grids, tiles."""
