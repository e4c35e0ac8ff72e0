"""Predict: the boundary rule, and the form against players that say what they are told."""

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator, completed
from helpers.tokenizer import CharacterTokenizer

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.selfplay.base import Actor
from rlpt.selfplay.predict import Predict, boundary_credit
from rlpt.template import ANSWER, END, THINK
from rlpt.types import Problem


class PieceTokenizer(CharacterTokenizer):
    """A few longer pieces beside the bytes; `encode` never uses them."""

    pieces = ("the", " cat", " sat", "\u00e9")
    first_piece = CharacterTokenizer.vocab_size
    vocab_size = first_piece + len(pieces)

    def decode(self, ids):
        return super().decode(self._in_bytes(ids))

    def decode_bytes(self, ids):
        return super().decode_bytes(self._in_bytes(ids))

    def _in_bytes(self, ids):
        spelt = [self.encode(self.pieces[i - self.first_piece]) if i >= self.first_piece else [i] for i in ids]
        return [token for tokens in spelt for token in tokens]


class SaysIds:
    """Row i says the token ids `rows[i]`."""

    def __init__(self, *rows):
        self.rows = rows

    def __call__(self, prompts, params, keys):
        return [completed(row, sampling) for row, sampling in zip(self.rows, params, strict=True)]


PIECES = PieceTokenizer()
THE, CAT, SAT, ACUTE = range(PIECES.first_piece, PIECES.vocab_size)
THINKS, ANSWERS, ENDS = (PIECES.mark_id(mark) for mark in (THINK, ANSWER, END))
CHARACTERS = CharacterTokenizer()


def passage(context, future, seed=1):
    decode = PIECES.decode
    meta = {"context": tuple(context), "future": tuple(future)}
    return Problem("passage", seed, 0, decode(context), decode(future), meta)


def text_passage(context, future):
    return passage(CHARACTERS.encode(context), CHARACTERS.encode(future))


def play(form, problems, generator, tokenizer=PIECES, keys=None):
    keys = list(range(11, 11 + len(problems))) if keys is None else keys
    return form.play(problems, {}, Actor(generator, tokenizer), keys=keys, policy_step=7)


CAT_BYTES = [b" cat", b" sat", b" down"]
E_ACUTE = "\u00e9".encode()


@pytest.mark.parametrize(
    ("prediction", "future", "credit"),
    [
        (b" cat", CAT_BYTES, 1),  # exactly one token
        (b" cat sat", CAT_BYTES, 1),  # two
        (b" cat sat down", CAT_BYTES, 1),  # all that is known
        (b" ca", CAT_BYTES, 0),  # half a token
        (b" cat sa", CAT_BYTES, 0),  # one and a half
        (b" cats", CAT_BYTES, 0),  # a byte too many
        (b" cat sat down.", CAT_BYTES, 0),  # past the end of what is known
        (b" dog", CAT_BYTES, 0),  # as long as the truth
        (b" cat dog", CAT_BYTES, 0),
        (b"cat", CAT_BYTES, 0),  # the space is a byte too
        (b"", CAT_BYTES, 0),
        (b"", [], 0),
        (b"", [b"", b"a"], 0),  # a token without bytes is no boundary
        (b"a", [b"", b"a"], 1),
        (E_ACUTE, [E_ACUTE, b"t"], 1),
        (E_ACUTE[:1], [E_ACUTE, b"t"], 0),  # cut inside a character
        (E_ACUTE[:1], [E_ACUTE[:1], E_ACUTE[1:]], 1),  # where the true tokens are cut there too
        ("\u00e8".encode(), [E_ACUTE], 0),  # its first byte is the right one
    ],
)
def test_credit_is_for_whole_true_tokens(prediction, future, credit):
    assert boundary_credit(prediction, future) == credit


FUTURE = (CAT, SAT, ACUTE)
SPELT = CHARACTERS.encode


@pytest.mark.parametrize(
    ("ids", "outcome", "well_formed"),
    [
        ([ANSWERS, CAT, ENDS], 1, 1),
        ([*SPELT("hm"), ANSWERS, CAT, SAT, ENDS], 1, 1),
        ([ANSWERS, *SPELT(" cat"), ENDS], 1, 1),  # the right bytes in other tokens
        ([ANSWERS, *SPELT(" cat"), SAT, ENDS], 1, 1),
        ([ANSWERS, *SPELT(" ca"), ENDS], 0, 1),
        ([ANSWERS, CAT, *SPELT("s"), ENDS], 0, 1),
        ([ANSWERS, CAT, SAT, *SPELT("\u00e9")[:1], ENDS], 0, 1),  # cut inside a character
        ([ANSWERS, CAT, SAT, *SPELT("\u00e9"), ENDS], 1, 1),
        ([ANSWERS, THE, ENDS], 0, 1),
        ([THE, ANSWERS, SAT, ANSWERS, CAT, ENDS], 1, 1),  # the last answer mark
        ([ANSWERS, CAT, ANSWERS, SAT, ENDS], 0, 1),
        ([ANSWERS, CAT, ANSWERS, ENDS], 0, 0),
        ([ANSWERS, ENDS], 0, 0),
        ([CAT, ENDS], 0, 0),  # no answer mark
        ([ENDS], 0, 0),
        ([ANSWERS, CAT], 0, 0),  # no end mark
        ([ANSWERS, CAT, THINKS, ENDS], 0, 0),  # a mark is no text
        ([ANSWERS, PIECES.pad_id, CAT, ENDS], 0, 0),
    ],
)
def test_what_a_completion_is_worth(ids, outcome, well_formed):
    form = Predict(group_size=1, max_thought=4, max_prediction=8)
    (episode,) = play(form, [passage([THE], FUTURE)], SaysIds(ids))
    assert episode.outcome == {"solver": outcome}
    (trajectory,) = episode.trajectories
    assert trajectory.well_formed == well_formed
    assert trajectory.truncated == (ids[-1] != ENDS)
    assert trajectory.token_ids.tolist() == [THE, THINKS, *ids], "ids as they were drawn and as the corpus has them"


def test_the_first_token_alone():
    form = Predict(group_size=4, max_thought=2, first_token_only=True)
    rows = [[ANSWERS, CAT, SAT], [ANSWERS, CAT, THE], [ANSWERS, *SPELT(" c")], [ANSWERS, THE, CAT]]
    episodes = play(form, [passage([THE], FUTURE)], SaysIds(*([*row, ENDS] for row in rows)))
    assert [episode.outcome["solver"] for episode in episodes] == [1, 1, 0, 0]
    both = play(Predict(group_size=1, max_thought=2), [passage([THE], FUTURE)], SaysIds([ANSWERS, CAT, THE, ENDS]))
    assert both[0].outcome["solver"] == 0


def test_a_group_of_attempts():
    says = ["ab<|answer|>4<|end|>", "<|answer|>42<|end|>", "<|answer|>7<|end|>", "abcabcabc"]
    generator = ScriptedGenerator(CHARACTERS, lambda prompt, row: says[row])
    form = Predict(group_size=4, max_thought=5, max_prediction=2, temperature=0.5, characters="abc0123456789")
    episodes = play(form, [text_passage("6*7=", "42;")], generator, CHARACTERS)
    prompts, params, keys = generator.calls[0]
    assert prompts == [[*CHARACTERS.encode("6*7="), CHARACTERS.mark_id(THINK)]] * 4
    assert len(set(keys)) == 4
    assert max(keys) < 1 << 63
    assert (params[0].max_new_tokens, params[0].stop) == (5 + 1 + 2 + 1, (ENDS,))
    assert sorted(params[0].legal_ids) == sorted([ANSWERS, ENDS, *CHARACTERS.encode("abc0123456789")])
    assert [episode.outcome["solver"] for episode in episodes] == [1, 1, 0, 0]
    assert episodes[0].text == "<|think|>ab<|answer|>4<|end|>"

    first, last = episodes[0].trajectories[0], episodes[3].trajectories[0]
    assert first.action_mask.tolist() == [False] * 5 + [True] * 5
    assert first.logprobs.tolist() == [0.0] * 5 + [-1.0] * 5
    assert first.kept_ids[:5] == (None,) * 5
    assert all(np.array_equal(kept, params[0].legal_ids) for kept in first.kept_ids[5:])
    assert (first.evidence_mask, first.windows) == (None, None)
    assert (first.policy_step, first.temperature, first.role) == (7, 0.5, "solver")
    assert (last.truncated, len(last.token_ids)) == (True, 5 + 9)


def test_no_thought_and_an_open_vocabulary():
    generator = ScriptedGenerator(CHARACTERS, lambda prompt, row: ("4<|end|>", "5<|answer|>4<|end|>", "44")[row])
    form = Predict(group_size=3, max_thought=0, max_prediction=3)
    episodes = play(form, [text_passage("2+2=", "4.")], generator, CHARACTERS)
    prompts, params, _ = generator.calls[0]
    assert prompts[0][-1] == ANSWERS
    assert (params[0].max_new_tokens, params[0].legal_ids) == (4, None)
    assert [episode.outcome["solver"] for episode in episodes] == [1, 1, 0]
    assert episodes[0].text == "<|answer|>4<|end|>"
    assert episodes[0].trajectories[0].kept_ids is None
    limited = Predict(max_thought=0, characters="01").sampling(CHARACTERS)
    assert sorted(limited.legal_ids) == sorted([ENDS, *CHARACTERS.encode("01")])
    assert Predict(characters="01", legal_mask=False).sampling(CHARACTERS).legal_ids is None


def test_a_plain_prediction_is_one_token_after_the_context():
    generator = SaysIds([CAT], [THE], *[[token] for token in SPELT(" ")], [ENDS], [PIECES.eos_id])
    form = Predict(group_size=5, plain=True, max_thought=3, max_prediction=2, temperature=0)
    episodes = play(form, [passage([THE], FUTURE)], generator)
    assert [episode.outcome["solver"] for episode in episodes] == [1, 0, 0, 0, 0]
    first = episodes[0].trajectories[0]
    assert first.token_ids.tolist() == [THE, CAT], "no mark stands between them, and none after"
    assert first.action_mask.tolist() == [False, True]
    assert [one.trajectories[0].well_formed for one in episodes] == [1, 1, 1, 0, 0], "marks are no text"
    assert not any(one.trajectories[0].truncated for one in episodes), "one token is all that it has"
    assert episodes[0].text == " cat"

    params = form.sampling(PIECES)
    assert (params.max_new_tokens, params.stop, params.legal_ids, params.temperature) == (1, (), None, 0)
    limited = Predict(plain=True, characters="catx").sampling(PIECES)
    assert sorted(limited.legal_ids) == sorted(SPELT("catx")), "no mark is open"


def test_peers_follow_the_passages_and_noise_the_keys():
    problems = [text_passage("0110", "01"), text_passage("1001", "10"), text_passage("1111", "11")]
    form = Predict(group_size=2, characters="01")

    def tokens(problems, keys):
        episodes = play(form, problems, RandomGenerator(), CHARACTERS, keys)
        assert [episode.trajectories[0].peers for episode in episodes] == [key for key in keys for _ in range(2)]
        assert [episode.problem for episode in episodes] == [problem for problem in problems for _ in range(2)]
        return [episode.trajectories[0].token_ids.tolist() for episode in episodes]

    together = tokens(problems, [5, 6, 7])
    assert tokens(problems[1:2], [6]) == together[2:4]
    assert tokens(problems[1:2], [8]) != together[2:4]
    assert len(set(map(tuple, together))) == 6
    with pytest.raises(ValueError, match="shorter"):
        play(form, problems, RandomGenerator(), CHARACTERS, [5])


def test_chance_is_for_the_first_true_token_and_the_marks():
    problem = passage([THE], FUTURE)
    open_tokens = PIECES.vocab_size
    assert Predict().chance(None, problem, PIECES) == pytest.approx(open_tokens**-3)
    assert Predict(max_thought=0).chance(None, problem, PIECES) == pytest.approx(open_tokens**-2)
    assert Predict(characters=" catx").chance(None, problem, PIECES) == pytest.approx(7.0**-6)
    assert Predict(characters="cat").chance(None, problem, PIECES) == 0
    assert Predict(plain=True).chance(None, problem, PIECES) == pytest.approx(1 / open_tokens)
    assert Predict(plain=True, characters=" catx").chance(None, problem, PIECES) == 0, "one token can't spell ' cat'"
    assert Predict(plain=True, characters="4x").chance(None, text_passage("2+2=", "4."), CHARACTERS) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_thought": -1}, "max_thought=-1"),
        ({"max_prediction": 0}, "max_prediction=0"),
        ({"group_size": 0}, "group_size=0"),
        ({"first_token": True}, "did you mean 'first_token_only'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.create("selfplay", {"name": "predict", **options}, "play.selfplay")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"holds 0 tokens after its cut, .* needs 1"):
        play(Predict(group_size=1), [passage([THE], [])], SaysIds([ENDS]))
    with pytest.raises(ConfigError, match="the character '\u00e9' is 2 tokens"):
        Predict(characters="\u00e9").sampling(CHARACTERS)
