"""What every registered search over completions owes."""

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.searches import (
    TOKENIZER,
    CountingGenerator,
    assert_same_completions,
    judged_by,
    params_of,
    uniform,
    whim,
)

import rlpt.search  # noqa: F401 (registers)
from rlpt import registry
from rlpt.errors import ConfigError

SINGLE = {  # name -> a budget of one attempt
    "beam": {"width": 1, "expansions": 1},
    "best_of_n": {"attempts": 1},
    "mcts": {"simulations": 1},
    "revision": {"attempts": 1},
}
SEVERAL = {  # name -> budgets that are more
    "beam": [
        {"width": 2, "expansions": 3},
        {"width": 3, "expansions": 2, "max_step": 2},
        {"width": 1, "expansions": 2, "retries": 2},
    ],
    "best_of_n": [{"attempts": 5}],
    "mcts": [
        {"simulations": 9, "expansions": 3},
        {"simulations": 9, "moves": "token", "parallel": 2},
        {"simulations": 9, "rollouts": False, "rule": {"name": "gumbel"}},
    ],
    "revision": [{"attempts": 4}, {"attempts": 3, "keep": "last"}],
}
CASES = [(name, options) for name in registry.names("search") for options in SEVERAL.get(name, [])]
PROMPTS = [TOKENIZER.encode(word) for word in ("one", "two", "three", "four", "five")]
PARAMS = [params_of("abc .", length, ".") for length in (6, 8, 5, 8, 6)]
KEYS = [11, 12, 13, 14, 15]


def searcher(name, options, generator=None, judge=None):
    search = registry.create("search", {"name": name, **options})
    return search.wrap(generator or RandomGenerator(), judge or judged_by(whim), TOKENIZER, uniform)


def test_every_search_is_tried_here():
    assert sorted(SINGLE) == sorted(SEVERAL) == registry.names("search")


@pytest.mark.parametrize("name", registry.names("search"))
def test_an_unknown_option_and_a_negative_budget_are_named(name):
    with pytest.raises(ConfigError, match=r"play\.search\.wheels: unknown key"):
        registry.create("search", {"name": name, "wheels": 4}, "play.search")
    with pytest.raises(ConfigError, match="tokens=-1: must be 0"):
        registry.create("search", {"name": name, "tokens": -1})


@pytest.mark.parametrize("name", registry.names("search"))
def test_with_a_budget_of_one_attempt_it_is_the_plain_generator(name):
    plain = RandomGenerator()(PROMPTS, PARAMS, KEYS)
    assert_same_completions(searcher(name, SINGLE[name])(PROMPTS, PARAMS, KEYS), plain)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_row_depends_on_its_own_key_alone(name, options):
    together = searcher(name, options)(PROMPTS, PARAMS, KEYS)
    for row in range(len(PROMPTS)):
        alone = searcher(name, options)([PROMPTS[row]], [PARAMS[row]], [KEYS[row]])
        assert_same_completions(alone, [together[row]])
    other = searcher(name, options)(PROMPTS, PARAMS, [key + 1 for key in KEYS])
    assert [one.token_ids.tolist() for one in other] != [one.token_ids.tolist() for one in together]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_call_serves_all_rows(name, options):
    def calls(rows):
        generator = CountingGenerator()
        searcher(name, options, generator)(*([part[row] for row in rows] for part in (PROMPTS, PARAMS, KEYS)))
        return generator.calls

    alone = [calls([row]) for row in range(5)]
    assert 0 < max(alone) <= calls(range(5)) <= max(alone) + 2, "rounds in which a row needs nothing differ"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_completions_are_whole(name, options):
    for one, params in zip(searcher(name, options)(PROMPTS, PARAMS, KEYS), PARAMS):
        length = len(one.token_ids)
        assert 0 < length <= params.max_new_tokens
        assert set(one.token_ids.tolist()) <= set(params.legal_ids)
        assert (one.token_ids.dtype, one.logprobs.dtype) == (np.int64, np.float32)
        assert len(one.kept_ids) == len(one.logprobs) == length
        assert one.logprobs.tolist() == pytest.approx([-np.log(5)] * length)
        stopped = int(one.token_ids[-1]) in params.stop
        assert one.finish_reason == ("stop" if stopped else "length")
        assert stopped or length == params.max_new_tokens
        assert not set(one.token_ids[:-1].tolist()) & set(params.stop)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_tokens_are_counted_and_never_exceed_their_budget(name, options):
    generator = CountingGenerator()
    free = searcher(name, options, generator)
    free(PROMPTS, PARAMS, KEYS)
    assert free.tokens == generator.tokens == sum(free.last.generated)
    for budget in (1, 10, 25, 60):
        bounded = searcher(name, {**options, "tokens": budget})
        bounded(PROMPTS, PARAMS, KEYS)
        plain = RandomGenerator()(PROMPTS, PARAMS, KEYS)
        for spent, most, one in zip(bounded.last.generated, free.last.generated, plain):
            assert len(one.token_ids) * (budget == 1) <= spent <= max(budget, len(one.token_ids))
            assert spent <= max(most, len(one.token_ids))
    ample = searcher(name, {**options, "tokens": 10**6})
    assert_same_completions(ample(PROMPTS, PARAMS, KEYS), searcher(name, options)(PROMPTS, PARAMS, KEYS))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_is_returned_is_judged_no_worse_than_the_plain_completion(name, options):
    """For searches that keep the best of what they finish, the plain attempt among it."""
    if options.get("keep") == "last" or name == "beam":
        pytest.skip("not its aim: the last attempt, or the best of what a judge of unfinished texts let through")
    plain = RandomGenerator()(PROMPTS, PARAMS, KEYS)
    found = searcher(name, options)(PROMPTS, PARAMS, KEYS)
    values = [judged_by(whim)([0] * 5, part) for part in (plain, found)]
    assert all(best >= first for first, best in zip(*values))
    assert values[0] != values[1]
