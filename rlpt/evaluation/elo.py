"""Elo ratings of players from a table of games, with intervals.

The model is Bradley and Terry's (1952): player i scores 1 / (1 + 10^((r_j - r_i) / 400)) against j on average, a draw
being half a win. Ratings are the most likely ones (with half a virtual draw a pair, so that a player that won every
game has a finite one), by Newton's method; intervals come from the curvature there, the mean rating held fixed.
"""

from __future__ import annotations

import math

import numpy as np

SCALE = 400 / math.log(10)  # Elo points a nat
MEAN = 1000.0
VIRTUAL = 0.5  # games, drawn, between each pair that met
Z95 = 1.959964


def fit_elo(scores: np.ndarray, games: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scores [P, P] f64 (what i scored against j: wins and half of the draws), games [P, P] (how many) -> ratings [P]
    with mean 1000, and half widths [P] of their 95 % intervals. Raises ValueError where some players are not connected
    by games."""
    players = len(scores)
    if not _connected(games):
        raise ValueError("ratings: some players have met no one of the others, so they can't be compared")
    met = games > 0
    points, played = scores + VIRTUAL / 2 * met, games + VIRTUAL * met
    strengths = np.zeros(players)
    information = np.zeros((players, players))
    for _ in range(100):
        expected = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        gradient = (points - played * expected).sum(1)
        weights = played * expected * (1 - expected)
        information = np.diag(weights.sum(1)) - weights
        step = np.linalg.pinv(information) @ gradient
        strengths += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    variances = np.diag(np.linalg.pinv(information)).clip(min=0)
    return MEAN + SCALE * (strengths - strengths.mean()), Z95 * SCALE * np.sqrt(variances)


def _connected(games: np.ndarray) -> bool:
    reached, frontier = {0}, [0]
    while frontier:
        at = frontier.pop()
        for other in np.flatnonzero(games[at]):
            if int(other) not in reached:
                reached.add(int(other))
                frontier.append(int(other))
    return len(reached) == len(games)
