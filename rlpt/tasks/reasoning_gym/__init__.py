"""Data sets of the reasoning-gym library as tasks, scored in a confined process."""
