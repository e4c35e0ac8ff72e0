"""Solve against a scripted player."""

import numpy as np
import pytest
from helpers.players import ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.selfplay.base import Actor
from rlpt.selfplay.solve import Solve
from rlpt.tasks.base import create_task
from rlpt.template import ANSWER, END, THINK
from rlpt.types import Generator, Problem, Tokenizer

TOKENIZER = CharacterTokenizer()
TASK = create_task({"name": "reverse"})
PROBLEM = Problem("reverse", 1, 2, "reverse 314", "413", {"text": "314"})


def play(form, script, problems=(PROBLEM,), keys=(11,), generator=None):
    generator = generator or ScriptedGenerator(TOKENIZER, script)
    tasks = {"reverse": TASK}
    return form.play(problems, tasks, Actor(generator, TOKENIZER), keys=keys, policy_step=7), generator


def test_helpers_are_what_the_protocols_ask():
    assert isinstance(TOKENIZER, Tokenizer)
    assert isinstance(ScriptedGenerator(TOKENIZER, lambda prompt, row: ""), Generator)


def test_a_group_of_attempts():
    answers = ["413<|end|>", "412<|end|>", "<|end|>", "4131"]
    episodes, generator = play(Solve(group_size=4), lambda prompt, row: answers[row])
    prompts, params, keys = generator.calls[0]
    assert {TOKENIZER.decode(prompt) for prompt in prompts} == {"<|prompt|>reverse 314<|answer|>"}
    assert len(set(keys)) == 4
    assert max(keys) < 1 << 63
    assert params[0].max_new_tokens == 4
    assert params[0].stop == (TOKENIZER.mark_id(END),)
    legal = [*TOKENIZER.encode_characters(TASK.legal_characters(2)), TOKENIZER.mark_id(END)]
    assert sorted(params[0].legal_ids) == sorted(legal)

    right, near, empty, cut = (episode.trajectories[0] for episode in episodes)
    assert [episode.outcome["solver"] for episode in episodes] == [1.0, pytest.approx(0.6), 0.0, 0.0]
    assert [t.truncated for t in (right, near, empty, cut)] == [False, False, False, True]
    assert {t.peers for t in (right, near, empty, cut)} == {11}
    assert episodes[0].text == "<|answer|>413<|end|>"

    start = len(prompts[0])
    assert right.token_ids.tolist() == [*prompts[0], *TOKENIZER.encode("413"), TOKENIZER.mark_id(END)]
    assert right.action_mask.tolist() == [False] * start + [True] * 4
    assert right.logprobs.tolist() == [0.0] * start + [-1.0] * 4
    assert right.kept_ids[:start] == (None,) * start
    assert all(np.array_equal(kept, params[0].legal_ids) for kept in right.kept_ids[start:])
    assert (right.policy_step, right.temperature, right.role) == (7, 1.0, "solver")


def test_problems_keep_their_order_and_peers():
    other = Problem("reverse", 2, 1, "reverse 12", "21", {"text": "12"})
    script = lambda prompt, row: "413<|end|>" if "314" in prompt else "21<|end|>"  # noqa: E731
    episodes, _ = play(Solve(group_size=2), script, (PROBLEM, other), (5, 6))
    assert [e.problem.prompt for e in episodes] == ["reverse 314"] * 2 + ["reverse 12"] * 2
    assert [e.trajectories[0].peers for e in episodes] == [5, 5, 6, 6]
    assert all(e.outcome["solver"] == 1 for e in episodes)


def test_thinking_needs_the_answer_mark():
    form = Solve(group_size=3, think=True, max_thought=20)
    answers = ["3:4 2:1 1:3<|answer|>413<|end|>", "413<|end|>", "3:4<|answer|>4<|answer|>413<|end|>"]
    episodes, generator = play(form, lambda prompt, row: answers[row])
    prompts, params, _ = generator.calls[0]
    assert TOKENIZER.decode(prompts[0]).endswith(THINK)
    assert params[0].max_new_tokens == 20 + 1 + 3 + 1
    assert {TOKENIZER.mark_id(ANSWER), TOKENIZER.mark_id(END), *TOKENIZER.encode(": ")} <= set(params[0].legal_ids)
    assert [e.outcome["solver"] for e in episodes] == [1.0, 0.0, 1.0]
    assert [e.trajectories[0].well_formed for e in episodes] == [1, 0, 1]
    assert episodes[0].text.startswith(THINK)


def scripted_in_two(form, thoughts, answers):
    """Plays a group whose generator says a thought where a prompt ends in that mark, and an answer after a thought."""
    said = iter(answers)
    return play(form, lambda prompt, row: thoughts[row] if prompt.endswith(THINK) else next(said))


def test_a_thought_of_given_characters_is_sampled_by_itself():
    form = Solve(group_size=4, think=True, max_thought=3, thought_characters=".")
    thoughts = ["..<|answer|>", "<|answer|>", "....", "...<|answer|>"]
    episodes, generator = scripted_in_two(form, thoughts, ["413<|end|>", "41<|end|>", "4133"])
    (prompts, params, keys), (later_prompts, later_params, later_keys) = generator.calls
    mark, end = TOKENIZER.mark_id(ANSWER), TOKENIZER.mark_id(END)
    assert (params[0].max_new_tokens, params[0].stop) == (4, (mark,))
    assert sorted(params[0].legal_ids) == sorted([mark, *TOKENIZER.encode(".")])
    assert (later_params[0].max_new_tokens, later_params[0].stop) == (4, (end,))
    digits = TOKENIZER.encode_characters(TASK.legal_characters(2))
    assert sorted(later_params[0].legal_ids) == sorted([*digits, end])
    assert [TOKENIZER.decode(one)[-len(ANSWER) - 2 :] for one in later_prompts] == [
        f"..{ANSWER}",
        f"{THINK}{ANSWER}"[-len(ANSWER) - 2 :],
        f"..{ANSWER}",
    ], "what was thought is given, and a thought that found no end gets no answer"
    assert len({*keys, *later_keys}) == 7, "noise is not drawn twice"

    assert [e.text for e in episodes] == [
        f"{THINK}..{ANSWER}413{END}",
        f"{THINK}{ANSWER}41{END}",
        f"{THINK}....",
        f"{THINK}...{ANSWER}4133",
    ]
    assert [e.outcome["solver"] for e in episodes] == [1.0, pytest.approx(0.6), 0.0, 0.0]
    assert [e.trajectories[0].truncated for e in episodes] == [False, False, True, True]
    first = episodes[0].trajectories[0]
    start = len(prompts[0])
    assert first.action_mask.tolist() == [False] * start + [True] * 7
    assert first.logprobs[start:].tolist() == [-1.0] * 7
    kept = [tuple(sorted(ids)) for ids in first.kept_ids[start:]]
    assert kept == [params[0].legal_ids] * 3 + [later_params[0].legal_ids] * 4


def test_after_a_thought_of_given_characters_no_end_mark_is_needed():
    form = Solve(group_size=2, think=True, max_thought=3, thought_characters=".", end_mark=False)
    episodes, generator = scripted_in_two(form, ["..<|answer|>", "...."], ["4133"])
    _, (_, params, _) = generator.calls
    assert (params[0].max_new_tokens, params[0].stop) == (3, ())
    assert [e.text for e in episodes] == [f"{THINK}..{ANSWER}413", f"{THINK}...."]
    assert [e.outcome["solver"] for e in episodes] == [1.0, 0.0]
    assert [e.trajectories[0].truncated for e in episodes] == [False, True]
    assert [e.trajectories[0].well_formed for e in episodes] == [1, 0]
    symbols = len(TASK.legal_characters(2))
    assert form.chance(TASK, PROBLEM, TOKENIZER) == pytest.approx(symbols**-3 / 2)


@pytest.mark.parametrize(
    ("text", "think", "well_formed"),
    [
        ("21<|end|>", False, 1),
        ("99<|end|>", False, 1),
        ("<|end|>", False, 0),
        ("21", False, 0),
        ("1:2<|answer|>21<|end|>", True, 1),
        ("1:2 21<|end|>", True, 0),
    ],
)
def test_what_is_well_formed(text, think, well_formed):
    form = Solve(group_size=1, think=think, max_thought=8 * think)
    episodes, _ = play(form, lambda prompt, row: text)
    assert episodes[0].trajectories[0].well_formed == well_formed


def test_an_answer_without_an_end_mark_is_as_long_as_the_limit():
    form = Solve(group_size=2, end_mark=False)
    episodes, generator = play(form, lambda prompt, row: ("413", "4133")[row])
    params = generator.calls[0][1][0]
    assert (params.max_new_tokens, params.stop) == (3, ())
    assert TOKENIZER.mark_id(END) not in params.legal_ids
    assert [e.outcome["solver"] for e in episodes] == [1, 1]
    assert not any(e.trajectories[0].truncated for e in episodes)
    assert [e.trajectories[0].well_formed for e in episodes] == [1, 1]


def test_chance_counts_every_token_that_is_chosen():
    symbols = len(TASK.legal_characters(2))
    assert Solve().chance(TASK, PROBLEM, TOKENIZER) == pytest.approx((symbols + 1) ** -4)
    assert Solve(end_mark=False).chance(TASK, PROBLEM, TOKENIZER) == pytest.approx(symbols**-3)
    assert Solve(legal_mask=False).chance(TASK, PROBLEM, TOKENIZER) == pytest.approx(TOKENIZER.vocab_size**-4)
    assert Solve(think=True, max_thought=9, legal_mask=False).chance(TASK, PROBLEM, TOKENIZER) == pytest.approx(
        TOKENIZER.vocab_size**-5
    )


def test_an_open_vocabulary():
    episodes, generator = play(Solve(group_size=1, legal_mask=False, temperature=0.5), lambda prompt, row: "413<|end|>")
    assert generator.calls[0][1][0].legal_ids is None
    assert episodes[0].trajectories[0].kept_ids is None
    assert episodes[0].trajectories[0].temperature == 0.5


def test_a_character_of_several_tokens_is_refused():
    class TwoTokens(CharacterTokenizer):
        def encode_characters(self, text):
            return [*super().encode_characters(text), 9]

    with pytest.raises(ConfigError, match=r"task reverse: the character '0' is 2 tokens .* legal_mask: false"):
        Solve().sampling(TASK, 2, TwoTokens())


def test_a_key_too_few_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        play(Solve(group_size=1), lambda prompt, row: "", (PROBLEM, PROBLEM), (1,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 0}, "group_size=0"),
        ({"think": True}, "max_thought=0"),
        ({"max_thought": 3}, "think=False"),
        ({"think": True, "max_thought": 3, "end_mark": False}, "end_mark=False"),
        ({"thought_characters": "."}, r"thought_characters='\.'"),
        ({"think": True, "max_thought": 3, "thought_characters": ".", "legal_mask": False}, "the legal mask"),
        ({"top_p": 0.0}, r"top_p=0\.0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"groupsize": 4}, "did you mean 'group_size'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.create("selfplay", {"name": "solve", **options}, "play.selfplay")
