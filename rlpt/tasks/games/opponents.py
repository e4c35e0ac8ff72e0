"""Scripted opponents, and a game between players: `play_game(game, [Solver(), Random()], seed=3, level=0)`.

A player is anything that turns (game, state, rng) into a legal move. Each move's `rng` is keyed by game, seed, level
and ply, so that a game is the same in every process.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.tasks.base import keyed_random
from rlpt.tasks.games.base import OVER, Game, GameState
from rlpt.tasks.games.library import load_library
from rlpt.tasks.games.open_spiel import OpenSpielGame

MEMORY_MB = 100  # of a Monte-Carlo tree at most


class Player(Protocol):
    """Chooses moves."""

    def __call__(self, game: Game, state: GameState, rng: random.Random) -> str:
        """A legal move in `state`, in which the game is not over."""
        ...


def play_game(game: Game, players: Sequence[Player], seed: int, level: int) -> tuple[GameState, list[tuple[int, str]]]:
    """(final position, each move with the seat that made it) of game `seed` of `level`, a player a seat."""
    if len(players) != game.num_players:
        raise ValueError(f"{game.name} has {game.num_players} seats, not {len(players)}")
    state = game.opening(seed, level)
    made: list[tuple[int, str]] = []
    while (seat := game.player(state)) != OVER:
        move = players[seat](game, state, keyed_random(game.name, seed, level, f"ply {len(made)}"))
        state = game.apply(state, move)
        made.append((seat, move))
    return state, made


@register("opponent", "random")
@dataclass(frozen=True)
class Random:
    """Every legal move with the same chance."""

    def __call__(self, game: Game, state: GameState, rng: random.Random) -> str:
        """See `Player`."""
        return rng.choice(game.legal_moves(state))


@register("opponent", "solver")
@dataclass(frozen=True)
class Solver:
    """One of the best moves by the game's exact values, any of them with the same chance."""

    def __call__(self, game: Game, state: GameState, rng: random.Random) -> str:
        """See `Player`. Raises `TooLargeError` where the game can't judge the position exactly."""
        values = game.values(state)
        best = max(values.values())
        return rng.choice([move for move, value in values.items() if value == best])


@register("opponent", "minimax")
@dataclass(frozen=True)
class Minimax:
    """OpenSpiel's alpha-beta search, for its deterministic games with perfect information."""

    depth: int = 3  # plies; a position there that is not the end counts 0

    def __call__(self, game: Game, state: GameState, rng: random.Random) -> str:
        """See `Player`. Of equal moves the first; `rng` is not used."""
        adapter = _open_spiel_game("minimax", game, state, deterministic=True)
        from open_spiel.python.algorithms.minimax import alpha_beta_search

        inner = state.inner
        _, action = alpha_beta_search(
            game=inner.get_game(),
            state=inner,
            value_function=lambda _: 0.0,
            maximum_depth=self.depth,
            maximizing_player_id=inner.current_player(),
        )
        return adapter.move_text(inner, action)


@register("opponent", "mcts")
@dataclass(frozen=True)
class MonteCarloTreeSearch:
    """OpenSpiel's Monte-Carlo tree search with random rollouts, for its games with perfect information."""

    simulations: int = 100  # a move
    exploration: float = 2.0  # the constant of UCT, for returns on the game's own scale

    def __call__(self, game: Game, state: GameState, rng: random.Random) -> str:
        """See `Player`."""
        adapter = _open_spiel_game("mcts", game, state, deterministic=False)
        pyspiel, inner = load_library(), state.inner
        evaluator = pyspiel.RandomRolloutEvaluator(1, rng.getrandbits(31))
        seed = rng.getrandbits(31)
        bot = pyspiel.MCTSBot(
            inner.get_game(), evaluator, self.exploration, self.simulations, MEMORY_MB, True, seed, False
        )
        return adapter.move_text(inner, bot.step(inner))


def _open_spiel_game(opponent: str, game: Game, state: GameState, deterministic: bool) -> OpenSpielGame:
    """`game`, if OpenSpiel's search can play it. Raises ConfigError else."""
    if not isinstance(game, OpenSpielGame):
        raise ConfigError(f"opponent {opponent} plays OpenSpiel's games only, not {game.name}")
    types: Any = load_library().GameType
    rules = state.inner.get_game().get_type()
    if rules.information != types.Information.PERFECT_INFORMATION:
        raise ConfigError(f"opponent {opponent} would see what is hidden in {game.name}")
    if deterministic and rules.chance_mode != types.ChanceMode.DETERMINISTIC:
        raise ConfigError(f"opponent {opponent} plays games without chance only, not {game.name}")
    return game
