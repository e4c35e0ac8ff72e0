"""Training: schedule, step, loop and what they keep."""
