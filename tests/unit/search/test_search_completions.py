"""Searches over completions against analytic answers: best of N, noisy judges, beams, revision."""

import math
import random

import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.searches import TOKENIZER, judged_by, params_of, text_of

from rlpt.errors import ConfigError
from rlpt.search.base import step_ends
from rlpt.search.beam import Beam
from rlpt.search.best_of_n import BestOfN
from rlpt.search.revision import Revision
from rlpt.template import ANSWER
from rlpt.types import SamplingParams

PROMPTS = 2000
LETTER = params_of("abcdefgh", 1)  # a player that is right, says a, with p = 1/8
CHANCE = 1 / 8


def verdict(text):
    return float(text == "a")


def success(attempts, judge, prompts=PROMPTS):
    """Share of prompts whose chosen completion is right."""
    search = BestOfN(attempts=attempts).wrap(RandomGenerator(), judge, TOKENIZER)
    keys = [random.Random(row).getrandbits(63) for row in range(prompts)]
    found = search([[1]] * prompts, [LETTER] * prompts, keys)
    assert search.tokens == prompts * attempts
    return sum(verdict(text_of(one)) for one in found) / prompts


@pytest.mark.parametrize("attempts", [1, 2, 4, 8, 16])
def test_a_perfect_verifier_makes_one_less_the_chance_to_fail_every_time(attempts):
    expected = 1 - (1 - CHANCE) ** attempts
    sigma = math.sqrt(expected * (1 - expected) / PROMPTS)
    assert abs(success(attempts, judged_by(verdict)) - expected) < 3 * sigma


def noisy(rate):
    """A scorer that is right but for a share `rate` of its scores, which are random in [0, 2)."""
    rng = random.Random(1)

    def judge(rows, completions):
        return [2 * rng.random() if rng.random() < rate else verdict(text_of(one)) for one in completions]

    return judge


def test_a_noisy_scorer_is_over_optimised():
    """Its favourite of 64 is one of its mistakes: the curve bends down, where the perfect verifier's goes on to 1."""
    curve = {attempts: success(attempts, noisy(0.2), 300) for attempts in (1, 4, 64)}
    perfect = {attempts: success(attempts, judged_by(verdict), 300) for attempts in (4, 64)}
    assert curve[4] > curve[1] + 0.05, "a little search pays"
    assert curve[64] < curve[4] - 0.05
    assert curve[64] == pytest.approx(CHANCE, abs=4 * math.sqrt(CHANCE / 300))
    assert curve[64] - curve[4] < (perfect[64] - perfect[4]) - 0.4
    assert perfect[64] - curve[64] > 0.8


def test_ties_go_to_the_first_attempt():
    plain = RandomGenerator()([[1]], [LETTER], [5])
    (found,) = BestOfN(attempts=16).wrap(RandomGenerator(), judged_by(lambda _: 0.5), TOKENIZER)([[1]], [LETTER], [5])
    assert text_of(found) == text_of(plain[0])


def test_a_round_takes_as_many_attempts_as_are_sure_to_fit():
    """Ten tokens, attempts of up to four that stop early: 2 at first, and more while 4 are left."""
    params = params_of("ab.", 4, ".")
    search = BestOfN(attempts=50, tokens=10).wrap(RandomGenerator(), judged_by(len), TOKENIZER)
    search([[1]] * 50, [params] * 50, list(range(50)))
    assert all(6 < spent <= 10 for spent in search.last.generated)
    assert len(set(search.last.generated)) > 1


STEPS = ("ab", "ba", "bb", "aa", "ba", "ab")
TRACE = " ".join(STEPS) + " "


def right_steps(text):
    """Share of the steps before the first wrong one; the last word counts once it is closed."""
    written = text.split() if text[-1:] == " " else text.split()[:-1]
    right = 0
    while right < min(len(written), len(STEPS)) and written[right] == STEPS[right]:
        right += 1
    return right / len(STEPS)


def test_a_beam_finds_what_sampling_does_not():
    """A step is three tokens out of three: 1 in 27 by chance, six of them 1 in 4e8."""
    params, prompts = params_of("ab ", len(TRACE)), [[1]] * 4
    beam = Beam(width=2, expansions=200).wrap(RandomGenerator(), judged_by(right_steps), TOKENIZER)
    found = [text_of(one) for one in beam(prompts, [params] * 4, list(range(4)))]
    assert found == [TRACE] * 4
    attempts = max(beam.last.generated) // len(TRACE)
    plain = BestOfN(attempts=attempts).wrap(RandomGenerator(), judged_by(right_steps), TOKENIZER)
    sampled = plain(prompts, [params] * 4, list(range(4)))
    assert max(right_steps(text_of(one)) for one in sampled) <= 0.5


def test_a_beam_that_may_try_again_needs_few_expansions():
    """Eight steps a round find the right one in 26 % of the rounds: six in a row without luck, and without retries."""
    params, prompts, keys = params_of("ab ", len(TRACE)), [[1]] * 6, list(range(6))

    def found(retries):
        beam = Beam(width=1, expansions=8, retries=retries)
        search = beam.wrap(RandomGenerator(), judged_by(right_steps), TOKENIZER)
        return [text_of(one) for one in search(prompts, [params] * 6, keys)].count(TRACE), search.tokens

    assert found(0)[0] == 0
    assert found(60)[0] == 6
    assert found(60)[1] < 6 * 8 * 3 * 60 * 6


def test_steps_end_at_whitespace_and_at_the_answer_mark():
    mark = TOKENIZER.mark_id(ANSWER)
    assert step_ends(TOKENIZER, tuple(TOKENIZER.encode("a 1\n"))) == {*TOKENIZER.encode(" \n"), mark}
    assert step_ends(TOKENIZER, None) == {*TOKENIZER.encode(" \t\r\n"), mark}


def test_revision_reads_the_last_attempt_and_says_what_it_read():
    """Attempts count up; each is asked for behind the one before and the prompt's last token."""
    prompt = TOKENIZER.encode("go:")

    def script(text, row):
        last = text.removeprefix("go:").removesuffix(":")
        return str(int(last.rstrip(".") or 0) + 1) + "."

    params = SamplingParams(max_new_tokens=4, stop=tuple(TOKENIZER.encode(".")))
    player = ScriptedGenerator(TOKENIZER, script)
    search = Revision(attempts=9).wrap(player, judged_by(lambda text: float(text == "3.")), TOKENIZER)
    (found,) = search([prompt], [params], [1])
    assert text_of(found) == "3."
    assert TOKENIZER.decode(found.context.tolist()) == "2.:"
    assert [TOKENIZER.decode(call[0][0]) for call in player.calls] == ["go:", "go:1.:", "go:2.:"]
    assert len({call[2][0] for call in player.calls}) == 3, "each attempt has noise of its own"
    for keep, expected in (("best", "1."), ("last", "4.")):
        search = Revision(attempts=4, keep=keep).wrap(player, judged_by(lambda _: 0.0), TOKENIZER)
        (found,) = search([prompt], [params], [1])
        assert text_of(found) == expected
        assert (found.context is None) == (keep == "best")


@pytest.mark.parametrize(
    ("search", "options", "key"),
    [
        (BestOfN, {"attempts": 0}, "attempts=0"),
        (Beam, {"width": 0}, "width=0"),
        (Revision, {"attempts": 0}, "attempts=0"),
    ],
)
def test_options_out_of_range_are_named(search, options, key):
    with pytest.raises(ConfigError, match=key):
        search(**options)
