"""Games against bots, and ratings from tables of games."""

import math

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.rollouts import on_ranks
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401 (registers)
from rlpt.config import EvaluatedGame
from rlpt.errors import ConfigError
from rlpt.evaluation.elo import SCALE, fit_elo
from rlpt.evaluation.games import evaluate_games, open_contests
from rlpt.evaluation.summary import add_evaluation, evaluation_table, new_evaluation, summarise
from rlpt.selfplay.base import Actor

ACTOR = Actor(RandomGenerator(), CharacterTokenizer())


def contests(**changes):
    options = {"task": {"name": "tic_tac_toe"}, "opponent": {"name": "random"}, "games": 40, "temperature": 1.0}
    return open_contests([EvaluatedGame(**options | changes)])


def alone(found):
    return evaluate_games(found, ACTOR, 0, 1, lambda value: [value])


def test_two_random_players_share_the_games_and_a_perfect_one_does_not_lose():
    figures = alone(contests(games=400))["tic_tac_toe_random"]
    assert figures["win"] == pytest.approx(0.44, abs=0.08)
    assert figures["win"] + figures["draw"] + figures["loss"] == pytest.approx(1)
    assert figures["no_loss"] == pytest.approx(figures["win"] + figures["draw"])
    assert figures["seats"][0] > figures["seats"][1], "the first seat is better off"
    assert figures["worst_seat"] == min(figures["seats"])
    low, high = figures["interval"]
    assert low < figures["no_loss"] < high
    perfect = alone(contests(opponent={"name": "solver"}))["tic_tac_toe_solver"]
    assert perfect["win"] == 0
    assert perfect["no_loss"] < 0.5


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_games(size):
    wanted = alone(contests())
    found = on_ranks(size, lambda rank, gather: evaluate_games(contests(), ACTOR, rank, size, gather))
    assert found == [wanted] * size


def test_figures_reach_the_record_the_table_and_the_summary():
    figures = alone(contests())
    start, end = new_evaluation(0, 0, {}, games=figures), new_evaluation(5, 9, {}, games=figures)
    both = add_evaluation(add_evaluation([], end), start)
    assert [one["step"] for one in both] == [0, 5]
    summary = summarise(both, steps=5, text_tokens=9, rollout_tokens=0, episodes=0, seconds=1.0)
    pair = summary["games"]["tic_tac_toe_random"]["no_loss"]
    assert pair["start"] == pair["end"] == figures["tic_tac_toe_random"]["no_loss"]
    assert len(evaluation_table(both).renderables) == 2
    without = summarise([new_evaluation(0, 0, {})], steps=0, text_tokens=0, rollout_tokens=0, episodes=0, seconds=0.0)
    assert "games" not in without


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "sort"}}, r"evaluation\.games\.0\.task: 'sort' is of the kind 'task'"),
        ({"opponent": {"name": "rndom"}}, r"evaluation\.games\.0\.opponent\.name: unknown opponent 'rndom'"),
        ({"search": {"simulation": 3}}, r"evaluation\.games\.0\.search\.simulation: unknown key; did you mean 'simu"),
        ({"search": {"rule": {"name": "uct"}}}, "unknown tree_rule 'uct'"),
    ],
)
def test_what_cannot_be_played_is_refused_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        contests(**changes)


def test_two_contests_of_one_label_are_refused():
    options = EvaluatedGame(task={"name": "nim"}, opponent={"name": "random"})
    with pytest.raises(ConfigError, match="'nim_random' comes 2 times"):
        open_contests([options, options])


def test_a_search_without_a_model_says_so():
    with pytest.raises(ConfigError, match="no model here that could be asked"):
        alone(contests(search={"simulations": 3}))


def test_ratings_of_two_players_by_hand():
    """30 points of 40 and half a virtual draw: log odds of 30.25 / 10.25; information 40.5 p (1 - p) in a strength
    difference, of which each rating moves by a half."""
    ratings, widths = fit_elo(np.array([[0.0, 30.0], [10.0, 0.0]]), np.array([[0.0, 40.0], [40.0, 0.0]]))
    share = 30.25 / 40.5
    assert ratings[0] - ratings[1] == pytest.approx(400 * math.log10(share / (1 - share)))
    assert ratings.mean() == pytest.approx(1000)
    assert widths[0] == widths[1] == pytest.approx(1.959964 * SCALE / (2 * math.sqrt(40.5 * share * (1 - share))))


def test_ratings_come_back_from_games_that_were_drawn_by_them():
    rng, true = np.random.default_rng(1), np.array([900.0, 1000.0, 1150.0, 950.0])
    covered = 0
    for _ in range(40):
        scores, games = np.zeros((4, 4)), np.zeros((4, 4))
        for i in range(4):
            for j in range(i):
                won = rng.binomial(200, 1 / (1 + 10 ** ((true[j] - true[i]) / 400)))
                scores[i, j], scores[j, i], games[i, j], games[j, i] = won, 200 - won, 200, 200
        ratings, widths = fit_elo(scores, games)
        covered += (np.abs(ratings - true) < widths).sum()
    assert 0.88 < covered / 160 < 0.995


def test_a_player_that_always_wins_has_a_finite_rating_and_strangers_have_none():
    ratings, _ = fit_elo(np.array([[0.0, 20.0], [0.0, 0.0]]), np.array([[0.0, 20.0], [20.0, 0.0]]))
    assert np.isfinite(ratings).all()
    with pytest.raises(ValueError, match="met no one of the others"):
        fit_elo(np.zeros((3, 3)), np.array([[0, 5, 0], [5, 0, 0], [0, 0, 0]]))
