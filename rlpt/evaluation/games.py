"""Games against scripted opponents: how often the policy wins, draws and loses, from each seat, with a search or not.

Game i has the opening of `evaluation_seed(i)`, which no training game has where openings differ, and the policy sits in
seat i modulo the number of seats. What the opponent draws is keyed by the game alone, so evaluations of one run differ
by the weights and by nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpt import registry
from rlpt.config import EvaluatedGame
from rlpt.errors import ConfigError
from rlpt.evaluation.reasoning import Gather
from rlpt.evaluation.statistics import clustered_wilson_interval
from rlpt.search.options import TreeSearch
from rlpt.selfplay.base import Actor
from rlpt.selfplay.match import Match, Mover, play_matches
from rlpt.selfplay.movers import BotMover, policy_mover
from rlpt.tasks.base import evaluation_seed, keyed_hash
from rlpt.tasks.games.base import Game
from rlpt.tasks.games.opponents import Player
from rlpt.types import SamplingParams


@dataclass(frozen=True)
class Contest:
    """One entry of `evaluation.games`, made of its options."""

    label: str
    game: Game
    opponent: Player
    search: TreeSearch | None
    options: EvaluatedGame

    def mover(self, actor: Actor) -> Mover:
        """The policy's side."""
        return policy_mover(actor, SamplingParams(temperature=self.options.temperature), self.search)


def open_contests(games: Sequence[EvaluatedGame]) -> list[Contest]:
    """Raises ConfigError that names the key at fault."""
    contests = []
    for index, options in enumerate(games):
        where = f"evaluation.games.{index}"
        game = registry.create("task", options.task, f"{where}.task")
        if not isinstance(game, Game):
            raise ConfigError(f"{where}.task: '{game.name}' is of the kind '{game.kind}'; name a game")
        opponent = registry.create("opponent", options.opponent, f"{where}.opponent")
        search = None if options.search is None else registry.build(TreeSearch, options.search, f"{where}.search")
        if search is not None and options.transcript:
            raise ConfigError(f"{where}: a search reads positions alone; leave out one of transcript and search")
        usual = f"{game.name}_{options.opponent['name']}{'_search' if search else ''}".replace(".", "_")
        contests.append(Contest(options.label or usual, game, opponent, search, options))
    for label, count in Counter(one.label for one in contests).items():
        if count > 1:
            raise ConfigError(f"evaluation.games: '{label}' comes {count} times; give each a label of its own")
    return contests


def evaluate_games(
    contests: Sequence[Contest], actor: Actor, data_rank: int, data_size: int, gather: Gather
) -> dict[str, dict[str, Any]]:
    """Label -> {"win", "draw", "loss", "no_loss", "interval" (95 % of no_loss), "seats" (no_loss from each),
    "worst_seat", "games"}; the same on every rank. All data-parallel ranks must call it."""
    return {one.label: _figures(_play(one, actor, data_rank, data_size, gather), one.game) for one in contests}


def _play(contest: Contest, actor: Actor, data_rank: int, data_size: int, gather: Gather) -> list[tuple[int, float]]:
    """(the policy's seat, its return) of every game, in order."""
    game, options = contest.game, contest.options
    own, bot = contest.mover(actor), BotMover(contest.opponent)
    indices = range(data_rank, options.games, data_size)
    matches = []
    for index in indices:
        seats = [own if seat == index % game.num_players else bot for seat in range(game.num_players)]
        opening = game.opening(evaluation_seed(index), options.level)
        key = keyed_hash("contest", game.name, index) >> 1
        matches.append(Match(game, opening, seats, key, options.max_moves, options.transcript))
    play_matches(matches)
    played = [(index, match.returns[index % game.num_players]) for index, match in zip(indices, matches)]
    return [
        (index % game.num_players, value) for index, value in sorted(one for part in gather(played) for one in part)
    ]


def _figures(played: Sequence[tuple[int, float]], game: Game) -> dict[str, Any]:
    kept = [float(value >= 0) for _, value in played]
    seats = [[keeps for keeps, (at, _) in zip(kept, played) if at == seat] for seat in range(game.num_players)]
    shares = [sum(one) / len(one) for one in seats if one]
    return {
        "win": sum(value > 0 for _, value in played) / len(played),
        "draw": sum(value == 0 for _, value in played) / len(played),
        "loss": sum(value < 0 for _, value in played) / len(played),
        "no_loss": sum(kept) / len(kept),
        "interval": list(clustered_wilson_interval(kept, 1)),
        "seats": shares,
        "worst_seat": min(shares),
        "games": len(played),
    }
