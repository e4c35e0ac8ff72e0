"""Brainf**k and Befunge-93: interpreters that touch nothing, and tasks about programs."""
