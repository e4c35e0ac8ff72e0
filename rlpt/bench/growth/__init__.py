"""How cost grows with each size of a run, measured and by law."""
