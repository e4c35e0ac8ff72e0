"""Self-play's estimator where the answer is known: Kuhn poker's equilibrium, and what a baseline of each role saves.

One table of logits holds both seats. Advantages and the loss are RAE's own; OpenSpiel judges the policy.
"""

import numpy as np
import pytest
import torch

import rlpt.algorithms  # noqa: F401  (registers)
from rlpt.algorithms.advantage_estimators import running_baseline
from rlpt.algorithms.base import Outcomes
from rlpt.algorithms.rae import RAE
from rlpt.batch import Batch, Scores
from rlpt.registry import create

ROLES = ("player_0", "player_1")
NUM_GAMES, GAMES_A_STEP, RATE, ENTROPY = 128_000, 128, 3.0, 0.05
TURNS = 2  # the most that a seat takes in one game of Kuhn poker


class Tree:
    """Kuhn poker as tables of nodes: who sits there, which row of the policy they read, what follows, what it pays."""

    def __init__(self, game):
        self.keys, self.seat, self.row, self.child, self.pays = {}, [], [], [], []
        start = game.new_initial_state()
        firsts = [start.child(card) for card, _ in start.chance_outcomes()]
        self.deals = np.array([self.add(first.child(card)) for first in firsts for card, _ in first.chance_outcomes()])
        self.seat, self.row = np.array(self.seat), np.array(self.row)
        self.child, self.pays = np.array(self.child), np.array(self.pays)

    def add(self, state):
        node, over = len(self.seat), state.is_terminal()
        self.seat.append(-1 if over else state.current_player())
        self.row.append(-1 if over else self.keys.setdefault(state.information_state_string(), len(self.keys)))
        self.pays.append(state.returns() if over else [0.0, 0.0])
        self.child.append([node, node])
        if not over:
            self.child[node] = [self.add(state.child(action)) for action in (0, 1)]
        return node

    def play(self, policy, games, rng):
        """(rows, actions, mask), each [games, 2 seats, TURNS], and what each seat was paid [games, 2]."""
        rows, actions = np.zeros((2, games, 2, TURNS), np.int64)
        mask, taken = np.zeros((games, 2, TURNS), bool), np.zeros((games, 2), np.int64)
        node = rng.choice(self.deals, games)
        while (live := np.flatnonzero(self.seat[node] >= 0)).size:
            seat, row = self.seat[node[live]], self.row[node[live]]
            action = (rng.random(live.size) < policy[row, 1]).astype(np.int64)
            at = (live, seat, taken[live, seat])
            rows[at], actions[at], mask[at] = row, action, True
            taken[live, seat] += 1
            node[live] = self.child[node[live], action]
        return rows, actions, mask, self.pays[node]

    def reach(self, policy):
        """[rows] how likely a row's own seat makes the moves that lead there: what its turn in an average weighs."""
        found = np.zeros(len(policy))
        todo = [(node, 1.0, 1.0) for node in self.deals]
        while todo:
            node, *own = todo.pop()
            seat, row = self.seat[node], self.row[node]
            if seat < 0:
                continue
            found[row] = own[seat]
            for action in (0, 1):
                after = [*own]
                after[seat] *= policy[row, action]
                todo.append((self.child[node, action], *after))
        return found


def batch_of(mask, advantages, behavior):
    """Rows of one trajectory each, every place a label: what an algorithm reads."""
    integers = torch.zeros(mask.shape, dtype=torch.int64)
    share = 1 / mask.sum(1, keepdims=True).clip(1)
    return Batch(
        objective="game",
        tokens=integers,
        labels=integers,
        positions=integers,
        loss_mask=torch.from_numpy(mask),
        segments=integers,
        advantages=torch.from_numpy(np.broadcast_to(advantages[:, None], mask.shape).copy()),
        behavior_logprobs=behavior,
        sequence_share=torch.from_numpy(np.broadcast_to(share, mask.shape).copy()),
    )


def scores_of(logits, rows, actions):
    """Of a table of logits [rows, 2]."""
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return Scores(logprobs[rows, actions], entropy[rows])


def outcomes_of(rewards):
    """[games, 2 seats] -> all trajectories, game by game."""
    games = len(rewards)
    return Outcomes(rewards.reshape(-1), np.repeat(np.arange(games), 2), ROLES * games, ["game"] * (2 * games))


def test_self_play_with_rae_finds_the_equilibrium_of_kuhn_poker():
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python.algorithms.expected_game_score import policy_value
    from open_spiel.python.algorithms.exploitability import exploitability
    from open_spiel.python.policy import TabularPolicy

    game = pyspiel.load_game("kuhn_poker")
    tree, rng, baselines = Tree(game), np.random.default_rng(1), {}
    logits = torch.zeros(len(tree.keys), 2, dtype=torch.float64, requires_grad=True)
    total, weight = np.zeros((len(tree.keys), 2)), np.zeros((len(tree.keys), 1))
    steps = NUM_GAMES // GAMES_A_STEP
    for step in range(steps):
        policy = logits.detach().softmax(-1).numpy()
        reach = tree.reach(policy)[:, None]
        total, weight = total + reach * policy, weight + reach
        algorithm = create("algorithm", {"name": "rae", "entropy_bonus": ENTROPY * (1 - step / steps)})
        rows, actions, mask, pays = tree.play(policy, GAMES_A_STEP, rng)
        rows, actions, mask = (one.reshape(-1, TURNS) for one in (rows, actions, mask))
        scores = scores_of(logits, rows, actions)
        batch = batch_of(mask, algorithm.advantages(outcomes_of(pays), baselines), scores.logprobs.detach())
        (slope,) = torch.autograd.grad(algorithm(scores, batch).total / algorithm.count(batch), logits)
        with torch.no_grad():
            logits -= RATE * slope

    def judged(probabilities):
        tabular = TabularPolicy(game)
        for key, row in tree.keys.items():
            tabular.action_probability_array[tabular.state_lookup[key]] = probabilities[row]
        return exploitability(game, tabular), policy_value(game.new_initial_state(), [tabular, tabular])[0]

    distance, value = judged(total / weight)
    assert judged(np.full_like(policy, 0.5))[0] > 0.4, "where it began"
    assert distance < 0.05
    assert distance < judged(policy)[0], "the last policy goes round the equilibrium, their average goes there"
    assert value == pytest.approx(-1 / 18, abs=0.03)
    assert set(baselines) == {"game/player_0", "game/player_1"}


def slopes(advantages, chances, actions):
    """[trajectories, 2] RAE's gradient of each trajectory alone, by the logits of its own row of `chances` [., 2]."""
    logits = torch.from_numpy(np.log(chances)).requires_grad_()  # a row of its own for each, so that nothing adds up
    scores = scores_of(logits, np.arange(len(logits))[:, None], actions[:, None])
    mask = np.ones((len(logits), 1), bool)
    loss = RAE()(scores, batch_of(mask, advantages, scores.logprobs.detach()))
    return torch.autograd.grad(loss.total, logits)[0].numpy()


@pytest.mark.parametrize("games_a_call", [1, 100])
def test_a_baseline_of_each_role_saves_the_variance_that_theory_says_and_one_of_all_saves_none(games_a_call):
    value, games, rng = 0.6, 20_000, np.random.default_rng(2)
    seats = np.tile([0, 1], games)
    chances = np.array([[0.3, 0.7], [0.8, 0.2]])[seats]  # what each seat's policy is
    actions = (rng.random(2 * games) < chances[:, 1]).astype(np.int64)
    first = np.where(rng.random(games) < (1 + value) / 2, 1.0, -1.0)  # who wins has nothing to do with the moves
    pays = np.stack([first, -first], 1)

    def by_role(part, baselines):
        return RAE().advantages(outcomes_of(part), baselines)

    def by_all(part, baselines):
        return running_baseline(part.reshape(-1), ["game"] * part.size, baselines, RAE().decay)

    def variance(estimate):
        baselines = {}
        calls = [estimate(part, baselines) for part in np.split(pays, games // games_a_call)]
        found = slopes(np.concatenate(calls), chances, actions).reshape(games, -1)  # [games, 2 seats x 2 moves]
        settled = found[100:]  # until about 1 / (1 - decay) games were seen, a baseline of a role is on its way
        return settled.var(0).sum()

    plain = variance(lambda part, baselines: part.reshape(-1))
    assert plain > 0.1
    assert plain / variance(by_role) == pytest.approx(1 / (1 - value**2), rel=0.1)
    assert plain / variance(by_all) == pytest.approx(1, rel=0.1)
