"""Monte-Carlo values of steps: where they stand, and that they are the shares of continuations that end right."""

import numpy as np
import pytest
from helpers.players import ScriptedGenerator
from helpers.rollouts import source_context, text_before
from helpers.tokenizer import CharacterTokenizer

from rlpt import registry
from rlpt.algorithms.reinforce import Reinforce
from rlpt.algorithms.value_regression import ValueRegression
from rlpt.errors import ConfigError
from rlpt.template import ANSWER, END, THINK

CONTINUATIONS = 4
SOLVE = {"name": "solve", "think": True, "max_thought": 12}
TASK = {"task": {"name": "parity", "groups": 1, "bits": 2}, "curriculum": {"start_level": 1, "target_level": 1}}


def parity(prompt: str) -> int:
    return prompt.partition("parity ")[2].partition("<|")[0].count("1") % 2


def player(prompt: str, row: int) -> str:
    """Thinks `00 1 11`. From the end of its first step on it is right in one of two rows, from the second in one of
    four, from the third always."""
    right, begun = parity(prompt), prompt.partition(THINK)[2]
    if not begun:
        return f"00 1 11{ANSWER}0{END}"
    is_right = {"00": row % 2 == 0, "00 1": row % 4 == 0, "00 1 11": True}[begun]
    return f"{ANSWER}{right if is_right else 1 - right}{END}"


def open_values(algorithm=None, rank=0, size=1, **changes):
    tokenizer = CharacterTokenizer()
    generator = ScriptedGenerator(tokenizer, player)
    context = source_context(
        objective="judge",
        tokenizer=tokenizer,
        algorithm=algorithm or ValueRegression(),
        generator=generator,
        data_rank=rank,
        data_size=size,
        sequence_length=48,
    )
    options = {"tasks": [TASK], "selfplay": SOLVE, "problems": 4, "steps": 3, "continuations": CONTINUATIONS} | changes
    return registry.create("source", {"name": "step_values", **options}, "s").open(context), generator


def judged(batches):
    """(text up to the judged step, its value) of every judged step."""
    tokenizer, found = CharacterTokenizer(), []
    for batch in batches:
        assert batch.head == "process"
        for row, place in batch.loss_mask.nonzero().tolist():
            text = tokenizer.decode(text_before(batch, row, place))
            found.append((text.partition(THINK)[2], float(batch.returns[row, place])))
    return found


def test_a_step_is_worth_the_share_of_its_continuations_that_end_right():
    source, generator = open_values()
    found = judged(source.take(2))
    assert sorted(found) == sorted([("00", 0.5), ("00 1", 0.25), ("00 1 11", 1.0)] * 4)
    assert len(generator.calls) == 2
    prompts, params, keys = generator.calls[1]
    assert len(prompts) == len(set(keys)) == 4 * 3 * CONTINUATIONS
    room = {len(prompt): sampling.max_new_tokens for prompt, sampling in zip(prompts, params)}
    shortest, longest = min(room), max(room)
    assert room[shortest] - room[longest] == longest - shortest  # what is written is off the limit


def test_fewer_steps_are_spread_over_the_thought():
    found = judged(open_values(steps=2)[0].take(1))
    assert sorted(found) == sorted([("00", 0.5), ("00 1 11", 1.0)] * 4)


def test_figures_count_continuations_as_rollouts():
    source, _ = open_values()
    source.take(1)
    figures = source.metrics()
    assert figures["steps"] == 12
    assert figures["step_value"] == pytest.approx((0.5 + 0.25 + 1) / 3)
    assert figures["episodes"] == 4 + 12 * CONTINUATIONS
    assert figures["tokens"] == 4 * 10 + 12 * CONTINUATIONS * 3


def test_ranks_share_the_problems_and_a_resumed_source_goes_on():
    whole, _ = open_values()
    halves = [open_values(rank=rank, size=2)[0] for rank in range(2)]
    assert sorted(judged(whole.take(1))) == sorted(step for half in halves for step in judged(half.take(1)))
    again, _ = open_values()
    again.load_state_dict(whole.state_dict())
    for one, other in zip(whole.take(2), again.take(2)):
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.returns, other.returns)


def test_what_does_not_fit_is_refused_by_its_key():
    with pytest.raises(ConfigError, match="steps are those of thoughts"):
        open_values(selfplay={"name": "solve"})
    with pytest.raises(ConfigError, match="must train a head"):
        open_values(algorithm=Reinforce())
    with pytest.raises(ConfigError, match="continuations=0"):
        open_values(continuations=0)
    with pytest.raises(ConfigError, match=r"problems=4 is not divisible"):
        open_values(size=3)
