"""Numerical kernels; process groups arrive as arguments."""
