"""Games against OpenSpiel, against brute force, and against results worked by hand."""

import random
import sys
from functools import cache

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.registry import create, names
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.games.base import OVER, TooLargeError
from rlpt.tasks.games.nim import Nim, nim_sum
from rlpt.tasks.games.opponents import MonteCarloTreeSearch, Random, Solver, play_game
from rlpt.tasks.games.tic_tac_toe import TicTacToe, best_line, boards, value
from rlpt.types import Problem

ALL = [name for name in names("task") if name.startswith("open_spiel.")]


def at(game, level, *moves, seed=0):
    """The position after moves from an opening."""
    state = game.opening(seed, level)
    for move in moves:
        state = game.apply(state, move)
    return state


def worth(state, player):
    """What an OpenSpiel position is worth to a seat: plain minimax, nothing shared with the adapter."""
    if state.is_terminal():
        return state.returns()[player]
    values = [worth(state.child(action), player) for action in state.legal_actions()]
    return max(values) if state.current_player() == player else min(values)


def nim_problem(*heaps):
    game = Nim()
    for seed in range(100_000):
        state = game.opening(seed, 2)
        if state.inner == heaps:
            values = game.values(state)
            answer = max(values, key=values.get)
            return game, Problem("nim", 0, 2, game.prompt(state), answer, {"key": seed, "moves": [], "values": values})
    raise AssertionError("no such opening")


def test_nim_by_hand():
    game, problem = nim_problem(3, 5, 1)
    assert nim_sum((3, 5, 1)) == 7
    assert problem.prompt == "nim 3 5 1"
    assert problem.answer == "23", "5 becomes 5^7=2"
    assert game.verify(problem, "23") == 1
    assert game.verify(problem, "11") == pytest.approx(0.9 * 0.2)
    assert game.verify(problem, "26") == game.verify(problem, "41") == 0
    trace = "3=011 5=101 1=001 011^101=110 110^001=111 101^111=010 2:5-3=2"
    assert game.solution(problem) == trace
    assert game.verify_steps(problem, trace) == [1] * 7
    other_order = "1=001 001^011=010 010^101=111 111^101=010 2:5-3=2"
    assert game.verify_steps(problem, other_order) == [1] * 5
    assert game.verify_steps(problem, "3=011 3=011 4=100 011^111=100 011^101=111 2:5-2=3 1:3-1=2") == [
        1,
        0,
        0,
        0,
        0,
        0,
        0,
    ]


def test_tic_tac_toe_by_hand():
    game = TicTacToe()
    state = at(game, 3, "1", "4", "3", "5", "9", "2")
    assert game.prompt(state) == "tic_tac_toe x: xox/oo6/78x"
    assert dict(game.values(state)) == {"6": 1, "7": -1, "8": -1}
    meta = {"key": 0, "moves": list(state.moves), "values": game.values(state)}
    problem = Problem("tic_tac_toe", 0, 3, game.prompt(state), "6", meta)
    assert game.solution(problem) == "6=+ 7>6=- 8>6=-"
    assert game.verify_steps(problem, "8>6=- 6=+ 6=+ 7>8=0 7>8>6=+ 6=- 1=+") == [1, 1, 0, 0, 0, 0, 0]
    assert [game.verify(problem, move) for move in ("6", "7", "1", "66", "")] == [1, pytest.approx(0.18), 0, 0, 0]


def test_tic_tac_toe_counts():
    """The numbers of undecided boards with 9, 8, ... 1 free cells are known; the game is a draw."""
    assert [len(boards(free)) for free in range(9, 4, -1)] == [1, 9, 72, 252, 756]
    assert value("." * 9) == 0
    assert best_line("xx.oo....").startswith(">3")


@pytest.mark.parametrize("seed", range(3))
def test_native_tic_tac_toe_is_open_spiel_s(seed):
    pyspiel = pytest.importorskip("pyspiel")
    game, rng, theirs = TicTacToe(), random.Random(seed), pyspiel.load_game("tic_tac_toe")

    @cache
    def minimax(history):
        state = theirs.new_initial_state()
        for action in history:
            state.apply_action(action)
        if state.is_terminal():
            return state.returns()[0]
        values = [minimax((*history, action)) for action in state.legal_actions()]
        return max(values) if len(history) % 2 == 0 else min(values)

    for number in range(150):
        ours, state = game.opening(0, 0), theirs.new_initial_state()
        while True:
            legal = [] if state.is_terminal() else [str(action + 1) for action in state.legal_actions()]
            assert list(game.legal_moves(ours)) == legal
            assert list(game.returns(ours)) == state.returns()
            assert game.player(ours) == (OVER if state.is_terminal() else state.current_player())
            if not legal:
                break
            if number < 40 and len(legal) <= 6:
                history, sign = tuple(state.history()), 1 if state.current_player() == 0 else -1
                expected = {move: sign * minimax((*history, int(move) - 1)) for move in legal}
                assert dict(game.values(ours)) == expected
            move = rng.choice(legal)
            ours = game.apply(ours, move)
            state.apply_action(int(move) - 1)


@pytest.mark.parametrize("level", [1, 2, 4, 9])
def test_native_nim_is_open_spiel_s(level):
    pyspiel = pytest.importorskip("pyspiel")
    game, rng = Nim(), random.Random(level)
    for seed in range(60):
        ours = game.opening(seed, level)
        sizes = ";".join(map(str, ours.inner))
        state = pyspiel.load_game(f"nim(is_misere=False,pile_sizes={sizes})").new_initial_state()

        def texts(state):
            words = [state.action_to_string(action).strip(";").split(", ") for action in state.legal_actions()]
            return ["".join(word.split(":")[1] for word in pair) for pair in words]

        while True:
            legal = [] if state.is_terminal() else texts(state)
            assert sorted(game.legal_moves(ours)) == sorted(legal)
            assert list(game.returns(ours)) == state.returns()
            assert game.player(ours) == (OVER if state.is_terminal() else state.current_player())
            if not legal:
                break
            if sum(ours.inner) <= 8:
                by_text = dict(zip(legal, state.legal_actions()))
                mine = state.current_player()
                assert dict(game.values(ours)) == {
                    m: worth(state.child(by_text[m]), mine) for m in game.legal_moves(ours)
                }
            move = rng.choice(legal)
            state.apply_action(state.legal_actions()[legal.index(move)])
            ours = game.apply(ours, move)


def test_without_open_spiel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlpt\[games\]'"):
        create_task({"name": "open_spiel.hex"})


@pytest.mark.parametrize("name", ALL)
def test_adapter_agrees_with_open_spiel(name):
    pyspiel = pytest.importorskip("pyspiel")
    game, rng = create_task({"name": name}), random.Random(name)
    for level in (0, game.max_level):
        theirs = pyspiel.load_game(game.rules.levels[level].game)
        scale = max(theirs.max_utility(), -theirs.min_utility())
        for seed in range(6):
            ours, played = game.opening(seed, level), theirs.new_initial_state()
            for action in ours.inner.history():  # the deal
                played.apply_action(action)
            while not played.is_terminal():
                legal = played.legal_actions()
                assert len(game.legal_moves(ours)) == len(legal)
                assert game.player(ours) == played.current_player()
                at = rng.randrange(len(legal))
                ours = game.apply(ours, game.legal_moves(ours)[at])
                played.apply_action(legal[at])
                for action in ours.inner.history()[len(played.history()) :]:  # chance
                    assert played.is_chance_node()
                    played.apply_action(action)
            assert game.player(ours) == OVER
            assert [value * scale for value in game.returns(ours)] == pytest.approx(played.returns())


@pytest.mark.parametrize(
    "name", ["breakthrough", "connect_four", "dots_and_boxes", "go_5x5", "hex", "othello", "pentago"]
)
def test_values_are_those_of_plain_minimax(name):
    pytest.importorskip("pyspiel")
    game = create_task({"name": f"open_spiel.{name}"})
    for level, index in ((0, 1), (0, 2), (1, 3), (1, 4)):
        state = game.start(game.sample(train_seed(1, index), level))
        inner, player = state.inner, state.inner.current_player()
        expected = [worth(inner.child(action), player) for action in inner.legal_actions()]
        assert list(game.values(state).values()) == expected


def test_connect_four_wins_are_found():
    """Whoever can complete four in a row at once has value 1 for it; read from the prompt alone."""
    pytest.importorskip("pyspiel")
    game, found = create_task({"name": "open_spiel.connect_four"}), 0
    for index in range(30):
        problem = game.sample(train_seed(2, index), game.max_level)
        _, seat, board = problem.prompt.split()
        rows = board.split("/")
        for move, worth_ in problem.meta["values"].items():
            column = int(move)
            row = max(r for r in range(6) if rows[r][column] == ".")
            cells = {(r, c): rows[r][c] for r in range(6) for c in range(7)} | {(row, column): "xo"[int(seat)]}
            lines = [
                [cells.get((row + step * (k - back), column + side * (k - back))) for k in range(4)]
                for step, side in ((0, 1), (1, 0), (1, 1), (1, -1))
                for back in range(4)
            ]
            if ["xo"[int(seat)]] * 4 in lines:
                found += 1
                assert worth_ == 1
    assert found >= 3


def test_kuhn_poker_best_response_to_a_random_opponent():
    """Cards are 0, 1, 2; returns are halved. Facing a bet: pass loses 1, bet wins or loses 2."""
    pytest.importorskip("pyspiel")
    game = create_task({"name": "open_spiel.kuhn_poker"})
    values = {}
    for seed in range(60):
        for moves in ((), ("p",), ("b",), ("p", "b")):
            state = at(game, 0, *moves, seed=seed)
            values[game.prompt(state).split()[-1]] = dict(game.values(state))
    assert len(values) == 12, "as many as information states"
    assert values["0b"] == values["0pb"] == {"p": -0.5, "b": -1}
    assert values["1b"] == values["1pb"] == {"p": -0.5, "b": 0}, "the other card is 0 or 2, each as likely"
    assert values["2b"] == values["2pb"] == {"p": -0.5, "b": 1}
    # Seat 1 after a pass: pass shows down for 1; a bet wins 1 when the other passes, else shows down for 2.
    assert values["0p"] == {"p": -0.5, "b": (0.5 * 1 + 0.5 * -2) / 2}
    assert values["2p"] == {"p": 0.5, "b": (0.5 * 1 + 0.5 * 2) / 2}


def test_best_response_is_open_spiel_s():
    pytest.importorskip("pyspiel")
    from open_spiel.python.algorithms.best_response import BestResponsePolicy
    from open_spiel.python.policy import UniformRandomPolicy

    for name in ("kuhn_poker", "liars_dice"):
        game = create_task({"name": f"open_spiel.{name}"})
        theirs = game.opening(0, 0).inner.get_game()
        for player in (0, 1):
            response = BestResponsePolicy(theirs, player, UniformRandomPolicy(theirs))
            for seed in range(40):
                state, rng = game.opening(seed, 0), random.Random(seed)
                while game.player(state) != OVER:
                    if game.player(state) == player:
                        chosen = response.best_response_action(state.inner.information_state_string(player))
                        values = game.values(state)
                        assert values[game.move_text(state.inner, chosen)] == max(values.values())
                    state = game.apply(state, rng.choice(game.legal_moves(state)))


def test_prompts_hide_the_other_card():
    pytest.importorskip("pyspiel")
    for name in ("kuhn_poker", "leduc_poker", "liars_dice"):
        game = create_task({"name": f"open_spiel.{name}"})
        seen = {}
        for seed in range(80):
            state = game.opening(seed, 0)
            own, other = state.inner.history()[:2]
            seen.setdefault(own, set()).add((game.prompt(state), other))
        assert len(seen) > 1
        for pairs in seen.values():
            assert len({other for _, other in pairs}) > 1
            assert len({prompt for prompt, _ in pairs}) == 1


def test_pig_is_played_as_value_iteration_of_our_own_says():
    """P(mine, other, turn) = max(hold, roll): Neller and Presser, "Optimal play of the dice game Pig" (2004)."""
    pytest.importorskip("pyspiel")
    game, goal = create_task({"name": "open_spiel.pig"}), 8
    level = [rules.game for rules in game.rules.levels].index(f"pig(winscore={goal})")
    wins = {(a, b, t): 0.5 for a in range(goal) for b in range(goal) for t in range(goal + 6)}

    def hold(a, b, t):
        return 1.0 if a + t >= goal else 1 - wins[b, a + t, 0]

    def roll(a, b, t):
        return (1 - wins[b, a, 0] + sum(1.0 if a + t + r >= goal else wins[a, b, t + r] for r in range(2, 7))) / 6

    for _ in range(200):
        wins = {key: max(hold(*key), roll(*key)) for key in wins}
    checked = 0
    for seed in range(20):
        state, rng = game.opening(seed, level), random.Random(seed)
        while game.player(state) != OVER:
            scores = list(map(int, game.prompt(state).replace("turn", "").split()[2:]))
            seat = game.player(state)
            key = scores[seat], scores[1 - seat], scores[2]
            values = game.values(state)
            assert values["stop"] == pytest.approx(2 * hold(*key) - 1, abs=1e-6)
            if key[0] + key[2] < goal:
                assert values["roll"] == pytest.approx(2 * roll(*key) - 1, abs=1e-6)
                checked += 1
            state = game.apply(state, rng.choice(game.legal_moves(state)))
    assert checked > 100


def results(game, first, second, count, level):
    """Mean return of `first`, who takes each seat in turn."""
    total = 0.0
    for seed in range(count):
        seat = seed % 2
        players = [first, second] if seat == 0 else [second, first]
        total += game.returns(play_game(game, players, train_seed(6, seed), level)[0])[seat]
    return total / count


def test_opponents_are_registered():
    assert names("opponent") == ["mcts", "minimax", "random", "solver"]
    assert create("opponent", {"name": "mcts", "simulations": 20}) == MonteCarloTreeSearch(simulations=20)


@pytest.mark.parametrize("name", ["nim", "tic_tac_toe"])
def test_solver_never_loses_a_drawn_game_and_beats_random(name):
    game = create_task({"name": name})
    assert results(game, Solver(), Random(), 40, 5) > 0.7
    assert game.name == "nim" or results(game, Solver(), Solver(), 6, 5) == 0


@pytest.mark.parametrize(
    ("name", "opponent", "least"),
    [
        ("tic_tac_toe", {"name": "minimax", "depth": 3}, 0.4),
        ("connect_four", {"name": "minimax", "depth": 2}, 0.3),
        ("connect_four", {"name": "mcts", "simulations": 50}, 0.5),
        ("hex", {"name": "mcts", "simulations": 50}, 0.3),
        ("pig", {"name": "mcts", "simulations": 50}, 0.2),
        ("pig", {"name": "solver"}, 0.2),
        ("kuhn_poker", {"name": "solver"}, 0.05),
        ("leduc_poker", {"name": "solver"}, 0.05),
    ],
)
def test_opponents_beat_random(name, opponent, least):
    pytest.importorskip("pyspiel")
    game = create_task({"name": f"open_spiel.{name}"})
    count = 200 if name.endswith("poker") else 20
    assert results(game, create("opponent", opponent), Random(), count, 0 if name != "pig" else 2) > least


@pytest.mark.parametrize(
    ("name", "opponent", "message"),
    [
        ("nim", "mcts", "OpenSpiel's games only"),
        ("open_spiel.kuhn_poker", "mcts", "would see what is hidden"),
        ("open_spiel.pig", "minimax", "without chance"),
    ],
)
def test_opponents_refuse_games_that_they_cannot_play(name, opponent, message):
    pytest.importorskip("pyspiel")
    with pytest.raises(ConfigError, match=message):
        play_game(create_task({"name": name}), [create("opponent", {"name": opponent})] * 2, 1, 0)


def test_solver_refuses_what_it_cannot_judge():
    pytest.importorskip("pyspiel")
    game = create_task({"name": "open_spiel.othello"})
    with pytest.raises(TooLargeError, match="no exact value within"):
        Solver()(game, game.opening(1, 0), random.Random(1))
