"""Small graphs, written as edges."""

from rlpt.tasks.graphs import path as path
