"""Rewriting, cellular automata and the next term."""

from rlpt.tasks.sequences import cellular_automaton as cellular_automaton
from rlpt.tasks.sequences import next_term as next_term
from rlpt.tasks.sequences import rewriting as rewriting
