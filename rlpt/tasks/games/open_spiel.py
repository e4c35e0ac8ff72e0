"""OpenSpiel's two-player zero-sum games as tasks and for self-play: `open_spiel.hex 0 xo./.x./o..` -> `c1`.

One adapter for all of `OPEN_SPIEL_GAMES`. It needs the optional package open_spiel, which is imported when a task is
made. A problem is a position near the end of a keyed random play-out, as near as the game's solver needs to judge every
move exactly; where hidden information matters, a move's worth is that against a uniformly random opponent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, keyed_random
from rlpt.tasks.games.base import OVER, Game, GameState, TooLargeError
from rlpt.tasks.games.library import load_game, load_library
from rlpt.tasks.games.open_spiel_games import OPEN_SPIEL_GAMES, Rules
from rlpt.types import Problem

MOST_PLAYOUTS = 640  # that a problem may take
TAILS = 16  # play-outs that share their beginning, since that is most of the work in long games
REPLAYED = 8  # decisions of a shared play-out, beyond the level's, that are drawn again


@lru_cache(maxsize=1 << 16)
def rewritten(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    """`text` after each (pattern, replacement), in order."""
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


@dataclass(frozen=True)
class OpenSpielGame(Game):
    """A row of `OPEN_SPIEL_GAMES`. Its level l is `rules.levels[l]`: which game, and how many decisions before the end
    of a random play-out its positions lie.

    Moves differ in value wherever `MOST_PLAYOUTS` find such a position. Chance (dice, cards) is
    keyed by the game's seed and the actions before it.
    """

    source: ClassVar[str] = "open_spiel"
    rules: ClassVar[Rules]

    def __post_init__(self) -> None:
        """Fails early without the library."""
        load_library()

    def legal_characters(self, level: int) -> str:
        """The game's."""
        return self.alphabet

    def answer_limit(self, level: int) -> int:
        """The game's longest move."""
        return self.rules.longest_move

    def opening(self, seed: int, level: int) -> GameState:
        """The game's first position, after chance moved."""
        state = load_game(self.rules.levels[level].game).new_initial_state()
        return GameState((), seed, level, self._after_chance(state, seed))

    def player(self, state: GameState) -> int:
        """OpenSpiel's, chance never."""
        return OVER if state.inner.is_terminal() else state.inner.current_player()

    def legal_moves(self, state: GameState) -> Sequence[str]:
        """In the order of OpenSpiel's actions."""
        return list(self.actions(state.inner))

    def apply(self, state: GameState, move: str) -> GameState:
        """The action of that text, then chance."""
        actions = self.actions(state.inner)
        if move not in actions:
            raise self.illegal(state, move)
        after = self._after_chance(state.inner.child(actions[move]), state.seed)
        return GameState((*state.moves, move), state.seed, state.level, after)

    def returns(self, state: GameState) -> Sequence[float]:
        """OpenSpiel's over the largest that the game has."""
        if not state.inner.is_terminal():
            return (0.0,) * self.num_players
        return tuple(value / _scale(state.inner.get_game()) for value in state.inner.returns())

    def prompt(self, state: GameState) -> str:
        """Name, seat, and what OpenSpiel shows to that seat, its lines joined by `/`: the information state where
        something is hidden, else the observation."""
        inner, player = state.inner, state.inner.current_player()
        hides = inner.get_game().get_type().information != load_library().GameType.Information.PERFECT_INFORMATION
        view = inner.information_state_string(player) if hides else inner.observation_string(player)
        words = [self.name, str(player)]
        if self.rules.shows_left:
            words.append(str(inner.get_game().max_game_length() - inner.move_number()))
        if self.rules.shows_last:
            words.append(state.moves[-1] if state.moves else "-")
        lines = rewritten(view, self.rules.view).strip("\n").split("\n")
        return " ".join([*words, "/".join(line.rstrip() for line in lines)])

    def values(self, state: GameState) -> Mapping[str, float]:
        """By the game's solver, over the largest return, rounded to 9 decimals so that equal worths are equal."""
        return _solved(self, state)[0]

    def effort(self, problem: Problem) -> int:
        """Positions that the solver looks at."""
        return _solved(self, self.start(problem))[1]

    def draw(self, rng: random.Random, level: int) -> GameState:
        """From random play-outs: the level's decisions before the end, or the next nearer that can be judged. One whose
        moves are all worth the same is taken only when `MOST_PLAYOUTS` found none better."""
        decisions, spare, states = self.rules.levels[level].decisions, None, []
        for playout in range(MOST_PLAYOUTS):
            if playout % TAILS == 0:
                states = self._playout(rng, self.opening(rng.getrandbits(63), level))
            else:
                kept = max(0, len(states) - decisions - REPLAYED)
                states = states[:kept] + self._playout(rng, states[kept])
            for state in states[-decisions:]:
                try:
                    values = self.values(state)
                except TooLargeError:
                    continue
                if len(set(values.values())) > 1:
                    return state
                spare = spare or state
                break
        assert spare is not None, f"{self.name}: no position of level {level} can be judged"
        return spare

    def _playout(self, rng: random.Random, state: GameState) -> list[GameState]:
        """The decisions from `state` on, moves drawn uniformly (see `Rules.prolongs`)."""
        states, inner = [], state.inner
        while not inner.is_terminal():
            states.append(state)
            actions = inner.legal_actions()
            action = rng.choice(actions)
            after = inner.child(action)
            if self.rules.prolongs and after.is_terminal():
                going_on = [other for other in actions if not inner.child(other).is_terminal()]
                action = rng.choice(going_on or [action])
                after = inner.child(action)
            moves = (*state.moves, self.move_text(inner, action))
            inner = self._after_chance(after, state.seed)
            state = GameState(moves, state.seed, state.level, inner)
        return states

    def move_text(self, inner: Any, action: int) -> str:
        """OpenSpiel's action of the seat to move, as the move that it is here."""
        return rewritten(inner.action_to_string(inner.current_player(), action), self.rules.moves)

    def actions(self, inner: Any) -> dict[str, int]:
        """OpenSpiel's legal actions by their texts."""
        if inner.is_terminal():
            return {}
        return {self.move_text(inner, action): action for action in inner.legal_actions()}

    def _after_chance(self, inner: Any, seed: int) -> Any:
        """The next state in which a seat moves or the game is over; `inner` itself where it is one."""
        while inner.is_chance_node():
            rng = keyed_random(self.name, seed, len(inner.history()), "chance")
            outcomes, chances = zip(*inner.chance_outcomes())
            inner = inner.child(rng.choices(outcomes, chances)[0])
        return inner


def _scale(game: Any) -> float:
    """The largest return of either sign."""
    return max(game.max_utility(), -game.min_utility())


@lru_cache(maxsize=256)
def _solved(game: OpenSpielGame, state: GameState) -> tuple[Mapping[str, float], int]:
    """(value of each legal move, positions looked at)."""
    if state.inner.is_terminal():
        return {}, 0
    values, positions = game.rules.solver(state.inner, game.rules.limit)
    scale = _scale(state.inner.get_game())
    texts = game.actions(state.inner).items()
    return {text: round(values[action] / scale, 9) + 0.0 for text, action in texts}, positions


def _register(name: str, rules: Rules) -> None:
    """The class of one row of the table."""
    title = "OpenSpiel" + "".join(word.capitalize() for word in name.split("_"))
    body = {
        "__doc__": f"OpenSpiel's {rules.levels[-1].game}.",
        "__module__": __name__,
        "name": f"open_spiel.{name}",
        "rules": rules,
        "alphabet": rules.alphabet,
        "thought_alphabet": "".join(sorted({*rules.alphabet, *DIGITS, *"+-=.e "})),
        "max_level": len(rules.levels) - 1,
    }
    register("task", f"open_spiel.{name}")(dataclass(frozen=True)(type(title, (OpenSpielGame,), body)))


for _name, _rules in OPEN_SPIEL_GAMES.items():
    _register(_name, _rules)
