"""What a search teaches token by token, and who is asked how often."""

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

from rlpt.search.evaluators import PolicyEvaluator, Rollouts, move_priors
from rlpt.search.mcts import Budget
from rlpt.search.options import TreeSearch
from rlpt.search.puct import Puct
from rlpt.selfplay.base import Actor
from rlpt.selfplay.duel import Duel
from rlpt.selfplay.match import Match, Position, play_matches
from rlpt.selfplay.movers import BotMover, LegalMover, SearchMover, searched
from rlpt.tasks.base import train_seed
from rlpt.tasks.games.moves import legal_tokens, position_ids
from rlpt.tasks.games.nim import Nim
from rlpt.tasks.games.opponents import Random, Solver
from rlpt.tasks.games.tic_tac_toe import TicTacToe
from rlpt.types import SamplingParams

TOKENIZER = CharacterTokenizer()


class TableChooser:
    """Log-probs and values that hang on the text alone."""

    def __init__(self, has_head=True):
        self.has_head, self.calls = has_head, []

    def logits(self, text, ids):
        seed = abs(hash(tuple(text))) % 2**32
        return np.random.default_rng(seed).normal(size=300)[list(ids)]

    def __call__(self, texts, candidates):
        self.calls.append(len(texts))
        found = []
        for text, ids in zip(texts, candidates, strict=True):
            logits = self.logits(text, ids)
            found.append((logits - np.log(np.exp(logits).sum())).astype(np.float32))
        values = np.array([np.sin(sum(text)) for text in texts], np.float32)
        return found, values if self.has_head else None


def test_priors_are_the_chain_rule_over_a_moves_tokens():
    game, chooser = Nim(), TableChooser()
    state = game.opening(5, 6)  # takes of one and two digits
    (found,), values = move_priors(chooser, game, [state], TOKENIZER)
    priors, read = found
    tokens = legal_tokens(game, state, TOKENIZER)
    prompt = position_ids(game, state, TOKENIZER)
    for prior, ids in zip(priors, tokens.ids, strict=True):
        logprob = 0.0
        for depth, token in enumerate(ids):
            following = tokens.following(ids[:depth])
            logits = chooser.logits([*prompt, *ids[:depth]], following)
            logprob += logits[following.index(token)] - np.log(np.exp(logits).sum())
        assert prior == pytest.approx(np.exp(logprob), rel=1e-5)
    assert priors.sum() == pytest.approx(1)
    assert values[0] == np.float32(np.sin(sum(prompt)))
    assert read > len(prompt)
    assert len(chooser.calls) == 3, "one call a token that is chosen, whatever the number of moves"


def test_values_are_the_seats_own():
    game, chooser = TicTacToe(), TableChooser()
    first = game.opening(1, 1)
    second = game.apply(first, "5")
    leaves = PolicyEvaluator(chooser, TOKENIZER)(game, [first, second], [1, 2])
    for leaf, state in zip(leaves, [first, second]):
        assert leaf.values[0] == -leaf.values[1]
        assert leaf.priors.shape == (len(game.legal_moves(state)),)
    assert chooser.calls == [2]
    _, said = TableChooser()([[1]], [[1]])
    assert said is not None
    rollouts = PolicyEvaluator(chooser, TOKENIZER, Rollouts(2))(game, [second], [2])
    assert rollouts[0].values == Rollouts(2).values(game, second, 2)


def test_a_search_is_written_as_shares_of_tokens():
    """Nim with heaps up to 15, where takes have one or two digits: shares of the moves that go on as this one does."""
    game = Nim()
    state = game.opening(5, 6)
    moves = game.legal_moves(state)
    target = np.random.default_rng(3).dirichlet(np.ones(len(moves)))
    move = next(one for one in moves if len(one) == 3)
    turn = searched(Position(game, state, 1), move, target, TOKENIZER)
    assert turn.move == move
    tokens, total = legal_tokens(game, state, TOKENIZER), 1.0
    for depth, (ids, weights) in enumerate(zip(turn.candidates, turn.weights, strict=True)):
        if ids is None:
            assert not turn.chosen[depth]
            continue
        assert weights.sum() == pytest.approx(1)
        share = weights[ids.tolist().index(turn.token_ids[depth])]
        assert turn.logprobs[depth] == pytest.approx(np.log(share), abs=1e-6)
        total *= share
    assert total == pytest.approx(target[moves.index(move)], rel=1e-5), "together they are the move's own share"
    assert tokens.move(turn.token_ids.tolist()) == move


def test_all_games_are_asked_in_one_call_a_turn():
    game, chooser = TicTacToe(), TableChooser()
    mover = SearchMover(PolicyEvaluator(chooser, TOKENIZER), Puct(), Budget(simulations=3))
    bot = BotMover(Random())
    matches = [Match(game, game.opening(1, 1), [mover, bot], key) for key in range(8)]
    play_matches(matches)
    turns = max(sum(seat == 0 for seat, _ in match.turns) for match in matches)
    assert len(chooser.calls) <= 4 * turns, "the root and three simulations, for all games at once"
    for match in matches:
        assert match.is_over
        assert all((turn.tree is not None) == (seat == 0) for seat, turn in match.turns)


def test_searched_games_have_targets_and_a_share_has_none():
    form = Duel(group_size=40, search=TreeSearch(simulations=4), search_share=0.5)
    game = TicTacToe()
    problem = form.problem(game, train_seed(1, 1), 1)
    actor = Actor(RandomGenerator(), TOKENIZER, TableChooser())
    episodes = form.play([problem], {game.name: game}, actor, keys=[5], policy_step=0)
    searched_games = 0
    for episode in episodes:
        for one in episode.trajectories:
            has = one.candidates is not None
            searched_games += has
            if has:
                for at in range(len(one.token_ids)):
                    assert (one.candidates[at] is not None) == bool(one.action_mask[at])
                    if one.candidates[at] is not None:
                        assert one.candidate_weights[at].sum() == pytest.approx(1)
                        assert one.token_ids[at] in one.candidates[at]
    assert 0.25 < searched_games / 80 < 0.75


def test_a_perfect_player_does_not_lose_to_a_search():
    game = TicTacToe()
    search = SearchMover(PolicyEvaluator(TableChooser(), TOKENIZER, Rollouts(4)), Puct(), Budget(simulations=60))
    perfect = BotMover(Solver())
    matches = [
        Match(game, game.opening(1, 1), [search, perfect] if key % 2 else [perfect, search], key) for key in range(10)
    ]
    play_matches(matches)
    assert all(match.returns[0 if key % 2 == 0 else 1] >= 0 for key, match in enumerate(matches))


def test_a_turn_is_named_by_its_key():
    game = TicTacToe()
    mover = LegalMover(RandomGenerator(), TOKENIZER, SamplingParams())
    first, again = (mover([Position(game, game.opening(1, 1), 9)])[0] for _ in range(2))
    assert first.move == again.move
