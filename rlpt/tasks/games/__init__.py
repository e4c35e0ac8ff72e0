"""Games of moves by seats; the best move in a position is a task."""
