"""Think against a scripted player: whose tokens are whose."""

import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.selfplay.base import Actor
from rlpt.selfplay.think import Think
from rlpt.template import ANSWER, THINK
from rlpt.types import Problem

TOKENIZER = CharacterTokenizer()
THINKS, ANSWERS = TOKENIZER.mark_id(THINK), TOKENIZER.mark_id(ANSWER)


def passage(context, future, seed=1):
    meta = {"context": tuple(TOKENIZER.encode(context)), "future": tuple(TOKENIZER.encode(future))}
    return Problem("passage", seed, 0, context, future, meta)


def play(form, script, problems, keys=None):
    generator = ScriptedGenerator(TOKENIZER, script)
    keys = list(range(11, 11 + len(problems))) if keys is None else keys
    return form.play(problems, {}, Actor(generator, TOKENIZER), keys=keys, policy_step=7), generator


def spans(mask):
    return "".join("x" if one else "." for one in mask)


@pytest.mark.parametrize(
    ("says", "shown", "actions", "evidence", "truncated"),
    [
        ("ab<|answer|>", "ab<|answer|>42", "...xxx..", "......xx", False),
        ("<|answer|>", "<|answer|>42", "...x..", "....xx", False),
        ("abc<|answer|>", "abc<|answer|>42", "...xxxx..", ".......xx", False),
        ("abcd", "abcd<|answer|>42", "...xxxx...", "........xx", True),  # at the limit: the mark is given
        ("abcd<|answer|>", "abcd<|answer|>42", "...xxxx...", "........xx", True),
        ("abcdefg", "abcd<|answer|>42", "...xxxx...", "........xx", True),
    ],
)
def test_the_thought_is_chosen_and_the_rest_is_given(says, shown, actions, evidence, truncated):
    form = Think(group_size=1, max_thought=4, horizon=2, characters="abcdefg")
    (episode,), generator = play(form, lambda prompt, row: says, [passage("k=", "42;")])
    (t,) = episode.trajectories
    assert episode.outcome == {}
    assert episode.text == THINK + shown
    assert TOKENIZER.decode(t.token_ids.tolist()) == "k=" + THINK + shown
    assert (spans(t.action_mask), spans(t.evidence_mask)) == (actions, evidence)
    assert t.token_ids[t.evidence_mask].tolist() == TOKENIZER.encode("42")
    assert t.logprobs.tolist() == [-1.0 if mine == "x" else 0.0 for mine in actions]
    legal = sorted([ANSWERS, *TOKENIZER.encode("abcdefg")])
    assert [None if kept is None else kept.tolist() for kept in t.kept_ids] == [
        legal if mine == "x" else None for mine in actions
    ]
    assert (t.truncated, t.well_formed, t.windows) == (truncated, 1.0, None)
    assert (t.role, t.peers, t.policy_step, t.temperature) == ("solver", 11, 7, 1.0)
    assert (t.action_mask.dtype, t.evidence_mask.dtype) == (bool, bool)
    sampling = generator.calls[0][1][0]
    assert (sampling.max_new_tokens, sampling.stop, sorted(sampling.legal_ids)) == (4, (ANSWERS,), legal)


def test_the_corpus_ids_go_in_as_they_are():
    eight, silent = TOKENIZER.encode("8")[0], TOKENIZER.eos_id  # no text would be encoded to this context
    problem = Problem("passage", 1, 0, "", "", {"context": (silent, eight), "future": (eight, silent, eight)})
    (episode,), generator = play(Think(group_size=1, horizon=2), lambda prompt, row: ANSWER, [problem])
    assert generator.calls[0][0] == [[silent, eight, THINKS]]
    assert episode.trajectories[0].token_ids.tolist() == [silent, eight, THINKS, ANSWERS, eight, silent]


def test_peers_follow_the_passages_and_noise_the_keys():
    problems = [passage("0110", "01"), passage("1001", "10"), passage("1111", "11")]
    form = Think(group_size=2, characters="01")

    def tokens(problems, keys):
        episodes = form.play(problems, {}, Actor(RandomGenerator(), TOKENIZER), keys=keys, policy_step=0)
        assert [episode.trajectories[0].peers for episode in episodes] == [key for key in keys for _ in range(2)]
        assert [episode.problem for episode in episodes] == [problem for problem in problems for _ in range(2)]
        return [episode.trajectories[0].token_ids.tolist() for episode in episodes]

    together = tokens(problems, [5, 6, 7])
    assert tokens(problems[1:2], [6]) == together[2:4]
    assert tokens(problems[1:2], [8]) != together[2:4]
    assert len(set(map(tuple, together))) == 6


def test_an_open_vocabulary():
    episodes, generator = play(Think(group_size=1), lambda prompt, row: "any text<|answer|>", [passage("a", "b")])
    assert generator.calls[0][1][0].legal_ids is None
    assert episodes[0].trajectories[0].kept_ids is None


def test_a_thought_that_may_not_stop_has_its_full_length():
    form = Think(group_size=1, max_thought=2, horizon=2, characters="abc", may_stop=False)
    (episode,), generator = play(form, lambda prompt, row: "abc", [passage("k=", "42;")])
    assert episode.text == THINK + "ab<|answer|>42"
    assert spans(episode.trajectories[0].action_mask) == "...xx..."
    sampling = generator.calls[0][1][0]
    assert (sampling.max_new_tokens, sampling.stop) == (2, ())
    assert sorted(sampling.legal_ids) == sorted(TOKENIZER.encode("abc")), "no mark"


def test_a_future_shorter_than_the_horizon_is_refused():
    with pytest.raises(ConfigError, match=r"holds 2 tokens after its cut, .* needs 3 \(think: its horizon\)"):
        play(Think(group_size=1, horizon=3), lambda prompt, row: ANSWER, [passage("a", "bcd"), passage("a", "bc")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_thought": 0}, "max_thought=0"),
        ({"horizon": 0}, "horizon=0"),
        ({"may_stop": False}, "may_stop=false: only `characters`"),
        ({"may_stop": False, "characters": "ab", "legal_mask": False}, "may_stop=false: only `characters`"),
        ({"horizons": 2}, "did you mean 'horizon'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.create("selfplay", {"name": "think", **options}, "play.selfplay")
