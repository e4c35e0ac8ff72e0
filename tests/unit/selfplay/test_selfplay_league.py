"""Elo and prioritised opponents, by hand."""

import json
from collections import Counter

import pytest

from rlpt.errors import ConfigError
from rlpt.selfplay.league import K_FACTOR, SELF, START, League, Opponents, expected


def test_elo_by_hand():
    """Equal ratings: a win moves each by k / 2; 400 points ahead, the expected score is 10 / 11."""
    league = League(Opponents(bots=1.0))
    league.record([["bot:0", 1.0], None], 3)
    assert league.rating == START + K_FACTOR / 2
    assert league.records["bot:0"].rating == START - K_FACTOR / 2
    assert expected(1400, 1000) == pytest.approx(10 / 11)
    before = league.rating
    league.record([["past@5", 0.5]], 6)
    assert league.rating == before  # it is rated as the policy is when it is met: a draw was expected
    assert league.records["past@5"].rating == before


def test_past_selves_that_win_more_are_drawn_more_often():
    league = League(Opponents(self=0.0, past=1.0))
    league.record([["past@1", 1.0]] * 9 + [["past@2", 0.0]] * 3 + [["past@2", 1.0]] * 3, 0)
    strong = league.records["past@2"].score
    assert league.priorities(["past@1", "past@2"]) == pytest.approx([0.0, (1 - strong) ** 2])
    drawn = Counter(league.draw(key, ["past@1", "past@2", "past@3"]) for key in range(3000))
    weights = [0.0, (1 - strong) ** 2, 0.25]
    for name, weight in zip(["past@1", "past@2", "past@3"], weights):
        assert drawn[name] / 3000 == pytest.approx(weight / sum(weights), abs=0.03)
    even = League(Opponents(past=1.0, priority="even"))
    even.records = league.records
    assert even.priorities(["past@2"]) == pytest.approx([strong * (1 - strong)])


def test_without_past_selves_it_plays_itself_and_shares_are_kept():
    league = League(Opponents(self=1.0, past=1.0, bots=2.0, bot=({"name": "random"}, {"name": "solver"})))
    drawn = Counter(league.draw(key, []) for key in range(4000))
    assert drawn[SELF] / 4000 == pytest.approx(0.5, abs=0.03)
    assert drawn["bot:0"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert drawn["bot:1"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_it_goes_on_from_its_state_exactly():
    games = [[f"past@{index % 3}", (index * 7 % 3) / 2] for index in range(50)] + [["bot:0", 1.0]]
    whole, first = League(Opponents()), League(Opponents())
    whole.record(games, 1)
    first.record(games[:20], 1)
    again = League(Opponents())
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    again.record(games[20:], 1)
    assert again.state_dict() == whole.state_dict()
    assert again.metrics() == whole.metrics()
    assert set(whole.metrics()) == {"elo", "score/random", "elo/random", "score/past"}


def test_forgotten_are_the_oldest_past_selves():
    league = League(Opponents())
    league.record([[f"past@{step}", 0.5] for step in range(100)] + [["bot:0", 0.5]], 100)
    assert "past@99" in league.records
    assert "past@0" not in league.records
    assert "bot:0" in league.records


@pytest.mark.parametrize(
    "options", [{"self": -1.0}, {"self": 0.0}, {"bots": 1.0, "bot": ()}], ids=["negative", "nobody", "no bot"]
)
def test_shares_that_say_nothing_are_refused(options):
    with pytest.raises(ConfigError, match="opponents"):
        Opponents(**options)
