"""Tree search over texts: it finds the one right string, its trees say what it did, and they grow again from dumps."""

import json

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.searches import TOKENIZER, judged_by, params_of, text_of, uniform

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.search.evaluators import Recorded
from rlpt.search.mcts import Budget, search
from rlpt.search.text import TextSpace, TextState
from rlpt.search.text_mcts import TextMcts

WANTED = "cabd"
PARAMS = params_of("abcd", len(WANTED))
STEPS = params_of("ab ", 9)


def credit(text):
    """Share of the positions that are right."""
    return sum(a == b for a, b in zip(text, WANTED)) / len(WANTED)


def steps_right(text):
    return sum(a == b for a, b in zip(text.split(), "abab")) / 4


def tree_search(judge=credit, chooser=uniform, **options):
    return TextMcts(**options).wrap(RandomGenerator(), judged_by(judge), TOKENIZER, chooser)


def again(tree, params, judge, by_steps, rule, simulations):
    """The tree that the same rule grows from the dump, written and read, and the judge."""
    dump = json.loads(json.dumps(tree.dump()))

    def worth(state):
        return 2 * judge(TOKENIZER.decode(list(state.ids))) - 1

    root = TextState(0)
    rule = registry.create("tree_rule", rule)
    (grown,) = search(
        TextSpace([params], worth, by_steps), [root], [tree.key], Recorded(dump, root), rule, Budget(simulations - 1)
    )
    return grown.dump()


@pytest.mark.parametrize("rule", [{"name": "puct"}, {"name": "gumbel"}])
def test_the_one_right_string_is_found_and_the_dump_grows_the_same_tree(rule):
    """256 strings; 60 simulations, each with one string sampled at its leaf."""
    keys = list(range(8))
    mcts = tree_search(moves="token", simulations=60, rule=rule)
    found = [text_of(one) for one in mcts([[1]] * 8, [PARAMS] * 8, keys)]
    assert found.count(WANTED) >= 7
    plain = RandomGenerator()([[1]] * 480, [PARAMS] * 480, list(range(480)))
    assert np.mean([text_of(one) == WANTED for one in plain]) < 0.05
    for tree in mcts.last.trees:
        assert tree.simulations == 59
        assert again(tree, PARAMS, credit, False, rule, 60) == tree.dump()


def test_sampled_steps_are_moves_and_stand_in_the_dump():
    mcts = tree_search(steps_right, moves="step", simulations=40, expansions=12)
    found = mcts([[1]] * 4, [STEPS] * 4, [3, 4, 5, 6])
    assert np.mean([steps_right(text_of(one)) for one in found]) > 0.6
    for tree, one in zip(mcts.last.trees, found):
        assert 1 < len(tree.root.moves) <= 12
        assert len(set(tree.root.moves)) == len(tree.root.moves)
        assert tree.root.priors.sum() == pytest.approx(1)
        steps = [TOKENIZER.decode(list(map(int, move.split()))) for node in tree.nodes() for move in node.moves]
        assert all(" " not in step[:-1] for step in steps)
        assert again(tree, STEPS, steps_right, True, {"name": "puct"}, 40) == tree.dump()
        assert len(one.logprobs) == len(one.token_ids) == len(one.kept_ids)


def test_priors_are_the_policys_at_its_temperature():
    def leaning(texts, candidates):
        return [np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32)) for _ in texts], None

    cool = params_of("abcd", len(WANTED)).__class__(**{**PARAMS.__dict__, "temperature": 0.5})
    mcts = tree_search(chooser=leaning, moves="token", simulations=8)
    found = mcts([[1]], [cool], [2])
    squared = np.array([0.16, 0.09, 0.04, 0.01])
    assert mcts.last.trees[0].root.priors == pytest.approx(squared / squared.sum())
    assert len(found[0].token_ids) == 4


def test_without_rollouts_texts_are_judged_as_they_stand():
    mcts = tree_search(moves="token", simulations=30, rollouts=False)
    (found,) = mcts([[1]], [PARAMS], [1])
    (tree,) = mcts.last.trees
    assert tree.root.leaf.values == (-1.0,), "nothing is written at the root"
    by_move = {node.path: node.leaf.values[0] for node in tree.nodes() if len(node.path) == 1 and node.leaf}
    right = str(TOKENIZER.encode("c")[0])
    assert by_move[(right,)] == pytest.approx(2 * 0.25 - 1)
    assert all(value == -1 for moves, value in by_move.items() if moves != (right,))
    assert mcts.tokens == 4, "the plain completion alone was sampled"
    assert credit(text_of(found)) >= credit(text_of(RandomGenerator()([[1]], [PARAMS], [1])[0]))


def test_what_moves_of_tokens_need_is_named():
    with pytest.raises(ConfigError, match="use moves: step"):
        tree_search(chooser=None, moves="token")([[1]], [PARAMS], [1])
    filtered = PARAMS.__class__(**{**PARAMS.__dict__, "top_k": 2})
    with pytest.raises(ConfigError, match="top_k"):
        tree_search(moves="token")([[1]], [filtered], [1])
    unlimited = PARAMS.__class__(max_new_tokens=4)
    with pytest.raises(ConfigError, match="legal_mask: true"):
        tree_search(moves="token")([[1]], [unlimited], [1])
    with pytest.raises(ConfigError, match=r"rule\.name: unknown tree_rule 'puctt'"):
        TextMcts(rule={"name": "puctt"})
    with pytest.raises(ConfigError, match="simulations=0"):
        TextMcts(simulations=0)
