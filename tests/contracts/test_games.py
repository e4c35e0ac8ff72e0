"""What every registered game owes, native or OpenSpiel's, besides what it owes as a task."""

import random
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.hostile_answers import ENDLESS, harmful
from helpers.tasks import JUNK, digests_elsewhere, problems, task_names

from rlpt.errors import ConfigError
from rlpt.registry import lookup
from rlpt.tasks.base import RELIABILITY, WRONG_CREDIT, create_task, is_held_out, train_seed
from rlpt.tasks.games.base import OVER
from rlpt.tasks.games.opponents import Random, play_game

GAMES = [name for name in task_names() if lookup("task", name).kind == "game"]
NATIVE = [name for name in GAMES if lookup("task", name).source == "native"]
MOST_MOVES = 1000  # of a play-out
FEW_POSITIONS = {  # games whose top level has fewer than 40 different prompts
    "open_spiel.kuhn_poker",
    "open_spiel.leduc_poker",
    "open_spiel.liars_dice",
}
TESTS = Path(__file__).parents[1]


def installed(name):
    return find_spec("pyspiel") is not None or lookup("task", name).source == "native"


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.skipif(not installed(n), reason="no pyspiel")) for n in GAMES]
)
def game(request):
    return create_task({"name": request.param})


@cache
def drawn(game, level):
    """40 problems of a level."""
    return problems(game, level, 40)


def levels(game):
    return range(game.max_level + 1)


def playout(game, level, seed):
    """Every position of a random game, the last one over."""
    rng, states = random.Random(seed), [game.opening(seed, level)]
    while game.player(states[-1]) != OVER:
        assert len(states) <= MOST_MOVES
        states.append(game.apply(states[-1], rng.choice(game.legal_moves(states[-1]))))
    return states


def test_twelve_games_and_more_are_registered():
    assert {"nim", "tic_tac_toe"} == set(NATIVE)
    assert len(GAMES) - len(NATIVE) >= 12


def test_same_bytes_in_another_process():
    assert len(digests_elsewhere([name for name in GAMES if installed(name)])) == 1


def test_problem_is_rebuilt_from_its_key(game):
    for level in levels(game):
        problem = drawn(game, level)[0]
        assert game.sample(problem.seed, level) == problem
        state = game.start(problem)
        assert game.prompt(state) == problem.prompt
        assert dict(game.values(state)) == problem.meta["values"]
        assert list(problem.meta["values"]) == list(game.legal_moves(state))
    assert game.name in FEW_POSITIONS or len({p.prompt for p in problems(game, game.max_level, 60)}) > 40
    assert not is_held_out(problems(game, 0, 1)[0].prompt)


def test_oracle_is_right_and_texts_are_plain(game):
    for level in levels(game):
        for problem in drawn(game, level):
            assert game.verify(problem, problem.answer) == 1
            assert problem.prompt.isascii()
            assert problem.prompt.isprintable()
            assert problem.prompt.startswith(f"{game.name} ")
            assert len(problem.prompt) <= 200
            assert len(problem.meta["values"]) >= 2, "a choice"
            for move, value in problem.meta["values"].items():
                assert -1 <= value <= 1
                assert 1 <= len(move) <= game.answer_limit(level) <= 6
                assert set(move) <= set(game.legal_characters(level)) <= set(game.alphabet)
            trace = game.solution(problem)
            assert set(trace) <= set(game.thought_alphabet)
            assert game.verify_steps(problem, trace) == [1.0] * len(trace.split())
            assert 0 in game.verify_steps(problem, trace + " 77+77=77")


def test_wrong_answers(game):
    rng = random.Random(0)
    for level in levels(game):
        moves = sorted({move for problem in drawn(game, level) for move in problem.meta["values"]})
        for problem in drawn(game, level):
            values = problem.meta["values"]
            assert all(game.verify(problem, move) == 0 for move in moves if move not in values)
            best = max(values.values())
            for move, value in values.items():
                credit = game.verify(problem, move)
                assert credit == 1 if value == best else 0 < credit <= WRONG_CREDIT
        scores = [game.verify(p, game.random_answer(p, rng)) for p in drawn(game, level)]
        assert sum(scores) / len(scores) < 0.55
    for junk in JUNK:
        assert game.verify(problem, junk) == 0
        game.verify_steps(problem, junk)


def test_hostile_answers_score_nothing_and_do_nothing(game, tmp_path):
    answers = [*harmful(str(tmp_path / "canary")), *ENDLESS]
    for level in {0, game.max_level}:
        assert not any(game.verify(drawn(game, level)[0], answer) for answer in answers)
    assert list(tmp_path.iterdir()) == []


def test_playouts_keep_the_rules(game):
    for level in levels(game):
        for seed in range(2):
            *states, last = playout(game, level, train_seed(4, seed))
            for state in states:
                legal = list(game.legal_moves(state))
                assert 0 < len(legal) == len(set(legal))
                assert all(len(move) <= game.answer_limit(level) and set(move) <= set(game.alphabet) for move in legal)
                assert 0 <= game.player(state) < game.num_players
                assert set(game.returns(state)) == {0.0}
                assert game.prompt(state).isprintable()
            assert list(game.legal_moves(last)) == []
            returns = game.returns(last)
            assert len(returns) == game.num_players
            assert all(-1 <= value <= 1 for value in returns)
            if game.zero_sum:
                assert sum(returns) == pytest.approx(0)
            with pytest.raises(ValueError, match=r"illegal move .* legal: none, the game is over"):
                game.apply(last, last.moves[-1])


def test_moves_leave_their_position_as_it_was(game):
    state = game.opening(7, game.max_level)
    before = game.prompt(state), list(game.legal_moves(state))
    after = game.apply(state, before[1][0])
    assert (game.prompt(state), list(game.legal_moves(state))) == before
    assert game.apply(state, before[1][0]) == after
    assert after.moves == (before[1][0],)


def test_illegal_move_lists_the_legal_ones(game):
    state = game.opening(7, game.max_level)
    legal = ", ".join(game.legal_moves(state))
    for junk in JUNK:
        with pytest.raises(ValueError, match="illegal move") as error:
            game.apply(state, junk)
        assert str(error.value).startswith(f"{game.name}: illegal move ")
        assert str(error.value).endswith(f"legal: {legal}")


def test_games_are_keyed(game):
    finals = [play_game(game, [Random(), Random()], seed, game.max_level) for seed in (1, 1, 2, 3, 4)]
    assert finals[0] == finals[1]
    assert len({(str(made), state.seed) for state, made in finals}) > 2
    assert [move for _, move in finals[0][1]] == list(finals[0][0].moves)
    with pytest.raises(ValueError, match="2 seats, not 1"):
        play_game(game, [Random()], 1, 0)


def test_levels_get_harder(game):
    rates = [
        sum(RELIABILITY ** game.effort(problem) for problem in drawn(game, level)) / len(drawn(game, level))
        for level in levels(game)
    ]
    assert rates == sorted(rates, reverse=True)
    assert game.source != "native" or len(set(rates)) == len(rates)
    limits = [game.answer_limit(level) for level in levels(game)]
    assert limits == sorted(limits)


def test_level_outside_is_refused(game):
    with pytest.raises(ConfigError, match=f"level {game.max_level + 1} is outside 0..{game.max_level}"):
        game.sample(1, game.max_level + 1)
