"""Tree search: hand-worked examples of both rules, exact play, and trees that depend on their own keys alone."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from rlpt.errors import ConfigError
from rlpt.search.evaluators import Recorded, Rollouts
from rlpt.search.gumbel import Gumbel, considered_visits
from rlpt.search.mcts import Budget, search
from rlpt.search.puct import Puct
from rlpt.search.tree import Leaf, Tree
from rlpt.tasks.games.base import OVER, GameState
from rlpt.tasks.games.nim import Nim
from rlpt.tasks.games.opponents import Random, play_game
from rlpt.tasks.games.tic_tac_toe import TicTacToe


class Bandit:
    """One move, then the end: what each of the arms returns to the only seat."""

    num_players = 1

    def __init__(self, returns):
        self.arms = returns

    def player(self, state):
        return OVER if state else 0

    def legal_moves(self, state):
        return [] if state else list(self.arms)

    def apply(self, state, move):
        return move

    def same(self, state):
        return None

    def returns(self, state):
        return (self.arms[state],)


class Chain:
    """One seat, one move in every position, five of them."""

    num_players = 1

    def player(self, state):
        return 0 if state < 5 else OVER

    def legal_moves(self, state):
        return ["on"] if state < 5 else []

    def apply(self, state, move):
        return state + 1

    def same(self, state):
        return None

    def returns(self, state):
        return (1.0,)


def told(priors, value):
    """An evaluator that says the same of every position."""
    return lambda space, states, keys: [Leaf(np.array(priors), (value,)) for _ in states]


def test_puct_by_hand():
    """c = 1.25 + log(1) up to 1e-4 at such few visits; priors .5, .3, .2; returns 0, 1, -1.

    Root's own judgement: N = 1. U = 1.25 * P * sqrt(1): a first (.625). Then N = 2: a has Q 0, U = .625 * sqrt(2) / 2
    = .442; b .530 -> b. N = 3: a .541, b Q 1 + .325 -> b again, and ever again while 1 + U(b) > U(a):
    at N = 10, a: .625 * sqrt(10) / 2 = .988, b: 1 + .375 * sqrt(10) / 9 = 1.13; c: .25 * sqrt(10) = .79.
    """
    rule = Puct(c_init=1.25)
    (tree,) = search(
        Bandit({"a": 0.0, "b": 1.0, "c": -1.0}), [""], [1], told([0.5, 0.3, 0.2], 0.3), rule, Budget(simulations=9)
    )
    assert tree.root.visits.tolist() == [1, 8, 0]
    assert tree.root.totals.tolist() == [0, 8, 0]
    scores = rule.scores(tree.root)
    constant = 1.25 + math.log((1 + 10 + 19652) / 19652)
    assert scores.tolist() == pytest.approx(
        [constant * 0.5 * math.sqrt(10) / 2, 1 + constant * 0.3 * math.sqrt(10) / 9, constant * 0.2 * math.sqrt(10)]
    )
    assert rule.target(tree).tolist() == pytest.approx([1 / 9, 8 / 9, 0])
    assert tree.root.moves[rule.move(tree)] == "b"


def test_the_schedule_of_sequential_halving():
    """16 simulations over 4 moves in 2 rounds: each 16 / (2 * 4) = 2 times, then two of them 16 / (2 * 2) = 4 times."""
    assert considered_visits(4, 16) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert considered_visits(4, 8) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert considered_visits(2, 5) == [0, 0, 1, 1, 2]
    assert considered_visits(1, 3) == [0, 1, 2]
    assert considered_visits(8, 0) == []


def test_gumbel_by_hand():
    """Four arms, priors equal, returns -1, 0, .5, 1; no noise; c_visit 1, so that sigma(q) = (1 + max N) (q + 1) / 2.

    8 simulations: all four once, then the better two (d, c) once more, then those two again.
    """
    rule = Gumbel(considered=4, c_visit=1.0, noise=False)
    bandit = Bandit({"a": -1.0, "b": 0.0, "c": 0.5, "d": 1.0})
    (tree,) = search(bandit, [""], [1], told([0.25] * 4, 0.0), rule, Budget(simulations=8))
    assert tree.root.visits.tolist() == [1, 1, 3, 3]
    assert tree.root.moves[rule.move(tree)] == "d"
    scores = np.array([4 * 0.0, 4 * 0.5, 4 * 0.75, 4 * 1.0])  # max N = 3, all tried: q is the mean
    assert rule.target(tree) == pytest.approx(np.exp(scores) / np.exp(scores).sum())


def test_moves_that_were_not_tried_are_completed():
    """v_mix = (v + N sum(pi q) / sum(pi)) / (1 + N) over tried moves: (.2 + 3 * (.5 * 1 + .25 * 0) / .75) / 4."""
    tree = Tree(Bandit({"a": 1.0, "b": 0.0, "c": 0.5}), "", 1)
    tree.root.expand(Leaf(np.array([0.5, 0.25, 0.25]), (0.2,)))
    tree.root.visits[:], tree.root.totals[:] = [2, 1, 0], [2.0, 0.0, 0.0]
    assert Gumbel().completed(tree.root).tolist() == pytest.approx([1.0, 0.0, (0.2 + 3 * (0.5 / 0.75)) / 4])


def test_gumbel_noise_chooses_by_the_priors_where_values_say_nothing():
    """One simulation, equal values: the move is argmax g + logit, which is a draw from the priors."""
    priors, count = np.array([0.6, 0.3, 0.1]), 3000
    trees = search(
        Bandit(dict.fromkeys("abc", 0.0)),
        [""] * count,
        range(count),
        told(priors, 0.0),
        Gumbel(),
        Budget(simulations=1),
    )
    drawn = np.bincount([Gumbel().move(tree) for tree in trees], minlength=3) / count
    assert np.abs(drawn - priors).max() < 0.04  # four standard deviations


class Searcher:
    """A player that searches with random play-outs."""

    def __init__(self, rule, simulations):
        self.rule, self.budget = rule, Budget(simulations=simulations)

    def __call__(self, game, state, rng):
        (tree,) = search(game, [state], [rng.getrandbits(63)], Rollouts(), self.rule, self.budget)
        return tree.root.moves[self.rule.move(tree)]


def test_it_never_loses_tic_tac_toe_to_a_random_player():
    game, searcher = TicTacToe(), Searcher(Puct(), 200)
    for seed in range(200):
        seat = seed % 2
        players = [searcher, Random()] if seat == 0 else [Random(), searcher]
        end, _ = play_game(game, players, seed, 0)
        assert game.returns(end)[seat] >= 0, f"lost game {seed}: {end.moves}"


@pytest.mark.parametrize(
    ("rule", "level"), [(Puct(), 0), (Gumbel(c_scale=0.1), 0), (Puct(proves=True), 1)], ids=["puct", "gumbel", "proves"]
)
def test_it_finds_the_winning_move_at_nim(rule, level):
    """Level 1, two heaps of up to seven, has more positions than simulations find without proofs."""
    game, rng = Nim(), random.Random(3)
    drawn = (game.draw(rng, level) for _ in range(400))
    states = [state for state in drawn if max(game.values(state).values()) == 1][:200]
    trees = search(game, states, range(len(states)), Rollouts(), rule, Budget(simulations=200))
    won = [game.values(tree.root.state)[tree.root.moves[rule.move(tree)]] == 1 for tree in trees]
    assert np.mean(won) >= 0.95


RULES = [Puct(noise_share=0.25), Puct(temperature=1.0), Puct(proves=True), Gumbel()]
RULE_IDS = ["noise", "temperature", "proves", "gumbel"]


@pytest.mark.parametrize("rule", RULES, ids=RULE_IDS)
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_tree_depends_on_its_own_key_alone(rule, parallel):
    """Searched with others, alone, and again; another key, another tree."""
    game, budget = TicTacToe(), Budget(simulations=40, parallel=parallel)
    states = [game.opening(seed, 0) for seed in range(5)]
    together = search(game, states, [7, 8, 9, 10, 11], Rollouts(), rule, budget)
    for tree, state, key in zip(together, states, [7, 8, 9, 10, 11]):
        (alone,) = search(game, [state], [key], Rollouts(), rule, budget)
        assert alone.dump() == tree.dump()
        assert rule.move(alone) == rule.move(tree)
        assert tree.simulations == tree.root.visits.sum() == 40
        assert not any(node.pending.any() for node in tree.nodes())
        judged = [node for node in tree.nodes() if node.leaf is not None]
        assert all(node.visits.sum() <= 40 for node in judged)
    (other,) = search(game, states[:1], [70], Rollouts(), rule, budget)
    assert other.dump() != together[0].dump()


def test_a_leaf_that_is_reached_twice_in_a_round_is_judged_once():
    asked = []

    def evaluate(space, states, keys):
        asked.append(list(states))
        return Rollouts()(space, states, keys)

    search(Chain(), [0, 0], [1, 2], evaluate, Puct(), Budget(simulations=6, parallel=3))
    assert asked == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("rule", RULES, ids=RULE_IDS)
def test_a_dumped_tree_grows_again_from_its_dump(rule):
    game, budget = TicTacToe(), Budget(simulations=30, parallel=2)
    state = game.apply(game.opening(1, 0), game.legal_moves(game.opening(1, 0))[4])
    (tree,) = search(game, [state], [5], Rollouts(3), rule, budget)
    dump = json.loads(json.dumps(tree.dump()))
    (again,) = search(game, [state], [5], Recorded(dump, state), rule, budget)
    assert again.dump() == tree.dump()
    with pytest.raises(LookupError, match="no judgement of the position after"):
        search(game, [state], [5], Recorded(dump, state), rule, replace(budget, simulations=200))


def test_tokens_end_a_search():
    def evaluate(space, states, keys):
        return [replace(leaf, tokens=10) for leaf in Rollouts()(space, states, keys)]

    game = TicTacToe()
    trees = search(game, [game.opening(1, 0)], [1], evaluate, Puct(), Budget(simulations=100, tokens=95))
    assert trees[0].tokens == 100
    assert trees[0].simulations == 9


def test_a_position_that_is_over_is_refused():
    with pytest.raises(ValueError, match="position that is over"):
        search(Bandit({"a": 1.0}), ["a"], [1], Rollouts(), Puct(), Budget())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Puct(noise_share=1.5), "noise_share=1.5"),
        (lambda: Puct(c_base=0), "c_base=0"),
        (lambda: Gumbel(considered=0), "considered=0"),
        (lambda: Budget(parallel=0), "parallel=0"),
        (lambda: Rollouts(0), "count=0"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("rule", [Puct(proves=True), Gumbel(proves=True)], ids=["puct", "gumbel"])
@pytest.mark.parametrize("game", [TicTacToe(), Nim()], ids=["tic_tac_toe", "nim"])
def test_what_is_proved_is_so(rule, game):
    """Near the end of the game a few hundred simulations prove the root; every proof in the tree is the exact value."""
    rng = random.Random(4)
    states = [game.draw(rng, 2 if game.name == "tic_tac_toe" else 0) for _ in range(30)]
    trees = search(game, states, range(30), Rollouts(), rule, Budget(simulations=300))
    proofs = 0
    for tree in trees:
        for node in tree.nodes():
            if node.is_over or node.leaf is None:
                continue
            exact = game.values(node.state)
            for move, known in zip(node.moves, node.known, strict=True):
                assert np.isnan(known) or known == exact[move]
                proofs += not np.isnan(known)
            if node.proved is not None:
                assert node.proved[node.player] == max(exact.values())
                assert node.proved[0] == -node.proved[1]
        assert tree.root.proved is not None
    assert proofs > 100
    if isinstance(rule, Puct):
        for tree in trees:
            exact = game.values(tree.root.state)
            assert exact[tree.root.moves[rule.move(tree)]] == max(exact.values())


@pytest.mark.parametrize("rule", [Puct(proves=True), Gumbel(proves=True)], ids=["puct", "gumbel"])
def test_positions_that_are_the_same_are_one_node_where_there_are_proofs(rule):
    """On two ways to one board what is found out counts for both; without proofs each way has a node of its own."""
    game, budget = TicTacToe(), Budget(simulations=200)
    (shared,) = search(game, [game.opening(1, 0)], [3], Rollouts(), rule, budget)
    (apart,) = search(game, [game.opening(1, 0)], [3], Rollouts(), replace(rule, proves=False), budget)
    boards = [game.same(node.state) for node in shared.nodes()]
    assert len(set(boards)) == len(boards)
    edges = [child for node in shared.nodes() for child in node.children.values()]
    assert len(edges) > len(boards)
    assert len({game.same(node.state) for node in apart.nodes()}) < len(apart.nodes())


def test_no_simulation_is_spent_on_a_move_that_is_proved_to_lose():
    game = Nim()
    (tree,) = search(game, [GameState((), 0, 1, (2, 1))], [3], Rollouts(), Puct(proves=True), Budget(simulations=100))
    by_move = dict(zip(tree.root.moves, zip(tree.root.known, tree.root.visits, strict=True), strict=True))
    assert by_move["11"][0] == 1
    assert by_move["12"][0] == -1  # leaves one object, which the other seat takes
    assert by_move["12"][1] <= 1
    assert by_move["11"][1] > 90


def test_without_proofs_nothing_is_known():
    game = TicTacToe()
    (tree,) = search(game, [game.opening(1, 0)], [3], Rollouts(), Puct(), Budget(simulations=100))
    assert all(np.isnan(node.known).all() and node.proved is None for node in tree.nodes())
