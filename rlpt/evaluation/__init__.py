"""Evaluation: bits per byte of held-out text, pass@k on held-out problems, their intervals and their files."""
