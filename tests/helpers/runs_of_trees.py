"""Runs of packed rows and trees as the masks that they stand for."""

import torch


def allowed_in(runs, rows, length):
    """[B, T, T] bool: which keys each query attends to."""
    found = torch.zeros(rows, length, length, dtype=torch.bool)
    for run in runs:
        own = slice(run.start, run.stop)
        found[run.row, own, own] = torch.ones(run.stop - run.start, run.stop - run.start, dtype=torch.bool).tril()
        if run.stem >= 0:
            found[run.row, own, runs[run.stem].start : runs[run.stem].stop] = True
    return found
