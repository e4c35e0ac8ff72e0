"""Rewriting, cellular automata and the next term."""
