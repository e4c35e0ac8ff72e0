"""Truth values: formulas, satisfiability, implication, liars."""
