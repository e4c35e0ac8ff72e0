"""Whom the policy plays against: itself, past selves, bots; and how strong each is.

Past selves are drawn by prioritised fictitious self-play (PFSP; AlphaStar, Vinyals et al. 2019, Nature 575, 350): by
how often the policy beats them. Strengths are Elo ratings (Elo 1978): after a game with score s, the policy's moves by
k (s - e), the other's by as much the other way, with e = 1 / (1 + 10^((other - own) / 400)).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlpt.errors import ConfigError
from rlpt.tasks.base import keyed_hash

SELF = "self"
START = 1000.0  # rating of the policy and of bots before their first game
K_FACTOR = 16.0
MOST_PAST = 64
DECAY = 0.98  # of an opponent's running mean score, a game
Priority = Literal["hard", "even", "uniform"]


@dataclass(frozen=True)
class Opponents:
    """Shares of the problems, by who sits in the seats that the policy does not hold. They need not add up to 1."""

    self: float = 1.0  # the policy itself, in all seats
    past: float = 0.0  # copies of `snapshot`; the policy itself while there is none
    bots: float = 0.0  # one of `bot`, each as often
    snapshot: str = "past"  # the name under `snapshots` (update: pool) of the past selves
    priority: Priority = "hard"  # PFSP's weights: hard (1 - p)^2, even p (1 - p), uniform; p: the policy's mean score
    bot: tuple[dict[str, Any], ...] = ({"name": "random"},)

    def __post_init__(self) -> None:
        shares = (self.self, self.past, self.bots)
        if min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError(
                f"opponents: self={self.self}, past={self.past}, bots={self.bots}: need shares, not all 0"
            )
        if self.bots and not self.bot:
            raise ConfigError("opponents.bot: empty; name at least one, or set opponents.bots: 0")


@dataclass
class Record:
    """What came of the games against one opponent. Mutable."""

    rating: float
    games: int = 0
    weighted: float = 0.0
    weight: float = 0.0

    @property
    def score(self) -> float:
        """The policy's running mean score in [0, 1]; 1/2 before the first game."""
        return self.weighted / self.weight if self.games else 0.5

    def add(self, score: float) -> None:
        """Takes one game in."""
        self.games += 1
        self.weighted = DECAY * self.weighted + (1 - DECAY) * score
        self.weight = DECAY * self.weight + (1 - DECAY)


def expected(own: float, other: float) -> float:
    """The score that Elo's model expects of a rating against another."""
    return 1 / (1 + 10 ** ((other - own) / 400))


class League:
    """Ratings of the policy and of everybody that it has met. A `Memory`: it moves on by notes of games."""

    def __init__(self, options: Opponents) -> None:
        self.options = options
        self.rating = START
        self.records: dict[str, Record] = {}

    def draw(self, key: int, past: Sequence[str]) -> str:
        """Who sits opposite in the problem of this key: `SELF`, one of the copies `past`, or a bot as `bot:N`."""
        options, rng = self.options, random.Random(keyed_hash("opponent", key))
        kind = rng.choices(("self", "past", "bots"), (options.self, options.past, options.bots))[0]
        if kind == "bots":
            return bot_name(rng.randrange(len(options.bot)))
        if kind == "self" or not past:
            return SELF
        return rng.choices(list(past), self.priorities(past))[0]

    def priorities(self, past: Sequence[str]) -> list[float]:
        """PFSP's weights of these copies, not normalised; equal ones where all are 0."""
        scores = [self.records[name].score if name in self.records else 0.5 for name in past]
        weigh = {"hard": lambda p: (1 - p) ** 2, "even": lambda p: p * (1 - p), "uniform": lambda p: 1.0}
        weights = [weigh[self.options.priority](score) for score in scores]
        return weights if any(weights) else [1.0] * len(past)

    def record(self, notes: Sequence[Any], policy_step: int) -> None:
        """Takes in (opponent, the policy's score in [0, 1]) of games in problem order; None of those against itself. A
        past self is rated as the policy is when it is first met; of past selves the last `MOST_PAST` are remembered."""
        met = [note for note in notes if note is not None]
        for name, score in met:
            is_bot = name.startswith("bot:")
            record = self.records.setdefault(name, Record(START if is_bot else self.rating))
            gain = K_FACTOR * (score - expected(self.rating, record.rating))
            self.rating += gain
            record.rating -= gain
            record.add(score)
        past = [name for name in self.records if not name.startswith("bot:")]
        for name in past[:-MOST_PAST]:
            del self.records[name]

    def metrics(self) -> dict[str, float]:
        """`elo`, and of each bot and of the pool as a whole the mean score against it and its rating."""
        figures = {"elo": self.rating} if self.records else {}
        for index, bot in enumerate(self.options.bot):
            if (record := self.records.get(bot_name(index))) is not None:
                figures |= {f"score/{bot['name']}": record.score, f"elo/{bot['name']}": record.rating}
        pool = [record for name, record in self.records.items() if not name.startswith("bot:")]
        if pool:
            figures["score/past"] = math.fsum(record.score for record in pool) / len(pool)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        records = {name: [r.rating, r.games, r.weighted, r.weight] for name, r in self.records.items()}
        return {"rating": self.rating, "records": records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.rating = state["rating"]
        self.records = {name: Record(*row) for name, row in state["records"].items()}


def bot_name(index: int) -> str:
    """What the league calls the bot with this number."""
    return f"bot:{index}"
