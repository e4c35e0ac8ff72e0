"""Small graphs, written as edges."""

from rlpt.tasks.graphs import colouring as colouring
from rlpt.tasks.graphs import path as path
from rlpt.tasks.graphs import reachability as reachability
from rlpt.tasks.graphs import shortest_path as shortest_path
from rlpt.tasks.graphs import topological_order as topological_order
