"""Duel: games between seats. One policy sits in every seat, or opposite past selves and bots.

Each seat that the policy holds gives one trajectory: all of that seat's turns. Each is chosen from the position alone
and has a window of its own, or, with `transcript`, from all that the seat has read and written: then a turn goes on
from the keys and values of the turn before. Games of one problem begin alike; the trajectories of one seat in them are
peers. Returns of a two-player zero-sum game add up to 0 whatever is written: a text that is no move loses the game to
the others, and is a matter of the reward's format part beside that (SPIRAL, Liu, Guertler et al. 2506.24119, has 1.5
and 0.5 there, which is no zero-sum game any more).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.options import TreeSearch
from rlpt.selfplay.base import Actor, SelfPlay, session
from rlpt.selfplay.league import SELF, League, Opponents
from rlpt.selfplay.match import ILLEGAL, Match, Mover, Turn, play_matches
from rlpt.selfplay.movers import BotMover, FreeMover, LegalMover, policy_mover
from rlpt.tasks.base import Task, keyed_hash, keyed_random
from rlpt.tasks.games.base import OVER, Game
from rlpt.types import Episode, Generator, Problem, SamplingParams, Trajectory


@register("selfplay", "duel")
@dataclass(frozen=True)
class Duel(SelfPlay):
    """`group_size` games a problem, in turn with the policy in each seat where it does not hold them all."""

    kinds: ClassVar[tuple[str, ...]] = ("game",)
    needs_luck: ClassVar[bool] = False

    group_size: int = 2
    legal: Literal["moves", "characters"] = (
        "moves"  # with `legal_mask`: tokens of legal moves, or of the game's alphabet
    )
    start: Literal["opening", "position"] = "opening"  # or from a drawn problem of the game as a task
    random_moves: int = 0  # up to so many random moves of both sides come first, the same in all games of a problem
    max_moves: int = 0  # after which a game is cut short and counts as drawn; 0: no limit
    transcript: bool = False  # a seat reads its earlier turns, too
    opponents: Opponents = field(default_factory=Opponents)
    search: TreeSearch | None = None  # the policy's seats search; what that finds are targets (alpha_zero, distill)
    search_share: float = 1.0  # of the games

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.random_moves, self.max_moves) < 0 or not 0 <= self.search_share <= 1:
            raise ConfigError(
                f"random_moves={self.random_moves}, max_moves={self.max_moves}, search_share={self.search_share}: must "
                "not be negative, and search_share at most 1"
            )
        if self.transcript and self.search is not None:
            raise ConfigError("transcript: a search reads positions alone; leave out one of transcript and search")
        for index, bot in enumerate(self.opponents.bot):
            registry.create("opponent", bot, f"opponents.bot.{index}")

    @property
    def gives_targets(self) -> bool:
        return self.search is not None

    def problem(self, task: Task, seed: int, level: int) -> Problem:
        """A game's opening with some random moves, or a position of the task."""
        assert isinstance(task, Game)
        if self.start == "position":
            return task.sample(seed, level)
        state, rng = task.opening(seed, level), keyed_random(task.name, seed, level, "random moves")
        for _ in range(rng.randint(0, self.random_moves)):
            after = task.apply(state, rng.choice(task.legal_moves(state)))
            if task.player(after) == OVER:
                break
            state = after
        return Problem(task.name, seed, level, task.prompt(state), "", {"key": seed, "moves": list(state.moves)})

    def memory(self) -> League:
        """Ratings of all that were met."""
        return League(self.opponents)

    def play(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        actor: Actor,
        *,
        keys: Sequence[int],
        policy_step: int,
        memory: Any = None,
    ) -> list[Episode]:
        """Outcomes are (1 + return) / 2 of the policy's seats. Where it held them all, a game does not say how hard
        the problem was."""
        league = self.memory() if memory is None else memory
        past = sorted(name for name in actor.past if name.partition("@")[0] == self.opponents.snapshot)
        with ExitStack() as sessions:
            games = self._seated(problems, tasks, keys, league, past, _Table(self, actor, sessions))
            play_matches([one.match for one in games])
        return [one.episode(self.temperature, policy_step) for one in games]

    def _seated(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        keys: Sequence[int],
        league: League,
        past: Sequence[str],
        table: _Table,
    ) -> list[_Game]:
        """All games before their first moves."""
        games: list[_Game] = []
        for problem, key in zip(problems, keys, strict=True):
            game = tasks[problem.task]
            assert isinstance(game, Game)
            other = league.draw(key, past)
            first = keyed_hash("seat", key) % game.num_players
            for sample in range(self.group_size):
                name = keyed_hash("duel", key, sample) >> 1
                mine = range(game.num_players) if other == SELF else [(first + sample) % game.num_players]
                movers = table.seated(game, mine, other, name)
                match = Match(game, game.start(problem), movers, name, self.max_moves, self.transcript)
                games.append(_Game(problem, key, match, tuple(mine), other))
        return games

    def chance(self, task: Task, problem: Problem, tokenizer: Any) -> float:
        """Nothing has to be hit by chance: somebody wins."""
        return 1.0

    def sampling(self, game: Game, actor: Actor) -> SamplingParams:
        """How moves are sampled, whatever limits a single token."""
        alphabet = self.character_ids(game.alphabet, game, actor.tokenizer)
        return self.params(1, (), alphabet)


@dataclass
class _Table:
    """The movers of one play, each made once, so that they are asked together; where seats read their earlier turns,
    once a seat, each with a session in which those are at hand."""

    form: Duel
    actor: Actor
    sessions: ExitStack
    made: dict[Any, Mover] = field(default_factory=dict)

    def seated(self, game: Game, mine: Sequence[int], other: str, name: int) -> list[Mover]:
        """A mover a seat: the policy in those of `mine`."""
        share = keyed_random("search", name, 0).random()
        searches = self.form.search is not None and share < self.form.search_share
        return [
            self._other(game, other, seat)
            if seat not in mine
            else self._search(game)
            if searches
            else self._policy(game, SELF, seat)
            for seat in range(game.num_players)
        ]

    def _other(self, game: Game, other: str, seat: int) -> Mover:
        if not other.startswith("bot:"):
            return self._policy(game, other, seat)
        spec = self.form.opponents.bot[int(other.removeprefix("bot:"))]
        return self._once(other, lambda: BotMover(registry.create("opponent", spec)))

    def _policy(self, game: Game, who: str, seat: int) -> Mover:
        form, actor = self.form, self.actor
        kind = LegalMover if form.legal == "moves" and form.legal_mask else FreeMover

        def make() -> Mover:
            generator: Generator = actor.generator if who == SELF else actor.past[who]
            if form.transcript:
                generator = self.sessions.enter_context(session(generator))
            return kind(generator, actor.tokenizer, form.sampling(game, actor))

        return self._once((who, game.name, seat if form.transcript else None), make)

    def _search(self, game: Game) -> Mover:
        form, actor = self.form, self.actor
        return self._once("search", lambda: policy_mover(actor, form.sampling(game, actor), form.search))

    def _once(self, key: Any, make: Any) -> Mover:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


@dataclass(frozen=True)
class _Game:
    """One game and who held which seat."""

    problem: Problem
    key: int
    match: Match
    mine: tuple[int, ...]  # seats of the policy
    other: str

    def episode(self, temperature: float, policy_step: int) -> Episode:
        match, is_own = self.match, self.other == SELF
        note = None if is_own else [self.other, (1 + match.returns[self.mine[0]]) / 2]
        moved = [seat for seat in self.mine if any(seat == mover for mover, _ in match.turns)]
        outcome = {seat_role(seat): (1 + match.returns[seat]) / 2 for seat in moved}
        trajectories = [
            seat_trajectory(
                [turn for seat, turn in match.turns if seat == mine],
                role=seat_role(mine),
                peers=keyed_hash("peers", self.key, mine) >> 1,
                temperature=temperature,
                policy_step=policy_step,
                truncated=match.is_cut,
                transcript=match.transcript,
            )
            for mine in moved
        ]
        return Episode(self.problem, trajectories, outcome, game_text(match), is_measured=not is_own, note=note)


def seat_role(seat: int) -> str:
    """What trajectories of a seat are called."""
    return f"seat{seat}"


def seat_trajectory(
    turns: Sequence[Turn],
    *,
    role: str,
    peers: int,
    temperature: float,
    policy_step: int,
    truncated: bool,
    transcript: bool = False,
) -> Trajectory:
    """A seat's turns one after the other: each with a window that begins at its own prompt, or as the one `transcript`
    that they were chosen from. Turns in which there was nothing to choose are left out, unless there is no other; of a
    transcript those at its end."""
    chosen = [at for at, turn in enumerate(turns) if turn.chosen.any()] or [0]
    told = turns[: chosen[-1] + 1] if transcript else [turns[at] for at in chosen]
    reads = [turn.prompt[turn.before :] for turn in told]
    parts = [np.array([*read, *turn.token_ids], np.int64) for read, turn in zip(reads, told, strict=True)]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    lengths = [(len(read), len(turn.token_ids)) for read, turn in zip(reads, told, strict=True)]
    searched = any(turn.candidates for turn in told)

    def spread(name: str) -> list[Any]:
        return [one for turn, (before, after) in zip(told, lengths) for one in _padded(turn, name, before, after)]

    def array(name: str, dtype: Any) -> np.ndarray:
        found = [
            np.concatenate([np.zeros(before, dtype), getattr(turn, name)]) for turn, (before, _) in zip(told, lengths)
        ]
        return np.concatenate(found)

    return Trajectory(
        role=role,
        peers=peers,
        token_ids=np.concatenate(parts),
        action_mask=array("chosen", bool),
        logprobs=array("logprobs", np.float32),
        temperature=temperature,
        kept_ids=tuple(spread("kept_ids")),
        windows=None if transcript else tuple((end - len(part), end) for part, end in zip(parts, ends)),
        well_formed=sum(turn.move != ILLEGAL for turn in turns) / max(1, len(turns)),
        truncated=truncated,
        policy_step=policy_step,
        candidates=tuple(spread("candidates")) if searched else None,
        candidate_weights=tuple(spread("weights")) if searched else None,
    )


def _padded(turn: Turn, name: str, before: int, after: int) -> list[Any]:
    """None for each token of the prompt, then what the turn holds of the written ones."""
    return [None] * before + list(getattr(turn, name) or (None,) * after)


def game_text(match: Match) -> str:
    """`5 1 9 | 1 -1`: the moves and the returns; `?` for what was no move."""
    moves = " ".join(turn.move or "?" for _, turn in match.turns)
    return f"{moves} | {' '.join(f'{value:g}' for value in match.returns)}"
