"""Vectors and linear equations."""
