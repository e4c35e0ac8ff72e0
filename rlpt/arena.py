"""`rlpt arena A B ... --game G`: everybody against everybody, and how strong each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlpt.errors import ConfigError
from rlpt.evaluation.elo import fit_elo
from rlpt.players import NamedPlayer, find_game, find_player, search_options
from rlpt.selfplay.duel import Duel
from rlpt.selfplay.match import Match, play_matches
from rlpt.tasks.base import evaluation_seed, keyed_hash
from rlpt.tasks.games.base import Game


@dataclass(frozen=True)
class Standings:
    """What came of an arena. [P, P] tables: row against column."""

    names: list[str]
    wins: np.ndarray
    draws: np.ndarray
    games: np.ndarray
    ratings: np.ndarray  # [P], mean 1000
    half_widths: np.ndarray  # [P], of 95 % intervals


def play_arena(
    players: Sequence[NamedPlayer], game: Game, level: int, games: int, random_moves: int, max_moves: int = 0
) -> Standings:
    """`games` games a pair (made even): each start, with its random moves, is played twice with seats exchanged. Raises
    ConfigError for less than two players and for games of other than two seats."""
    if len(players) < 2:
        raise ConfigError("an arena needs two players or more")
    if game.num_players != 2:
        raise ConfigError(f"{game.name} has {game.num_players} seats; an arena plays games of two")
    form, rounds = Duel(random_moves=random_moves), -(-games // 2)
    matches: list[tuple[int, int, Match]] = []
    for first, second in combinations(range(len(players)), 2):
        for index in range(rounds):
            problem = form.problem(game, evaluation_seed(index), level)
            for seats in ((first, second), (second, first)):
                key = keyed_hash("arena", players[seats[0]].name, players[seats[1]].name, index) >> 1
                movers = [players[seat].mover for seat in seats]
                matches.append((*seats, Match(game, game.start(problem), movers, key, max_moves)))
    play_matches([match for *_, match in matches])
    size = len(players)
    wins, draws, played = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    for first, second, match in matches:
        returns = match.returns
        wins[first, second] += returns[0] > returns[1]
        wins[second, first] += returns[1] > returns[0]
        for pair in ((first, second), (second, first)):
            draws[pair] += returns[0] == returns[1]
            played[pair] += 1
    ratings, half_widths = fit_elo(wins + draws / 2, played)
    return Standings([one.name for one in players], wins, draws, played, ratings, half_widths)


def print_standings(standings: Standings, title: str) -> None:
    """Best first: rating with its interval, then won, drawn and lost in all and against each of the others."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    order = np.argsort(-standings.ratings, kind="stable")
    table = Table(title=title, title_justify="left")
    table.add_column("player")
    for heading in ("Elo", "95 %", "won", "drawn", "lost", *(f"vs {place + 1}" for place in range(len(order)))):
        table.add_column(heading, justify="right")
    for place, row in enumerate(order):
        won, drawn = standings.wins[row].sum(), standings.draws[row].sum()
        lost = standings.games[row].sum() - won - drawn
        against = [_against(standings, row, other) for other in order]
        table.add_row(
            Text(f"{place + 1}. {standings.names[row]}"),
            f"{standings.ratings[row]:.0f}",
            f"± {standings.half_widths[row]:.0f}",
            *(f"{count:.0f}" for count in (won, drawn, lost)),
            *against,
        )
    Console().print(table)


def _against(standings: Standings, row: int, other: int) -> str:
    """Share of the points."""
    if not standings.games[row, other]:
        return "-"
    points = standings.wins[row, other] + standings.draws[row, other] / 2
    return f"{points / standings.games[row, other]:.2f}"


def main(
    names: Sequence[str],
    game: str,
    level: int,
    games: int,
    random_moves: int,
    simulations: int,
    leaf: str,
    temperature: float,
) -> None:
    """Loads the players, plays, and prints the standings. Raises ConfigError or CheckpointError."""
    from rlpt.distributed.device import leave

    found, search = find_game(game), search_options(simulations, leaf)
    if doubled := next((name for name in names if list(names).count(name) > 1), ""):
        raise ConfigError(f"player '{doubled}' is named twice")
    players = [find_player(name, search, temperature) for name in names]
    standings = play_arena(players, found, level, games, random_moves)
    print_standings(standings, f"{game}, {int(standings.games[0, 1])} games a pair")
    leave()
