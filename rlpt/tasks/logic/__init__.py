"""Truth values: formulas, satisfiability, implication, liars."""

from rlpt.tasks.logic import boolean as boolean
from rlpt.tasks.logic import implication as implication
from rlpt.tasks.logic import knights_knaves as knights_knaves
from rlpt.tasks.logic import satisfiability as satisfiability
