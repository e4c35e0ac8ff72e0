"""Demonstrations: what is imitated, and wrong answers that stay wrong and stay the same."""

import json

import numpy as np
import pytest
from helpers.rollouts import assert_equal_batches, source_context

import rlpt.rollout
import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.template import ANSWER, END, THINK
from rlpt.types import Problem

LEVELS = {"start_level": 3, "target_level": 3}
TASKS = [{"task": {"name": name}, "curriculum": LEVELS} for name in ("reverse", "sort")]


def open_source(rank=0, size=1, tasks=TASKS, problems=12, **options):
    spec = {"name": "demonstrations", "tasks": tasks, "problems": problems, **options}
    context = source_context(objective="imitate", data_rank=rank, data_size=size, algorithm=None, generator=None)
    return registry.create("source", spec, "objectives.imitate.source").open(context)


def texts(batches, decode):
    """{whole text: what of it carries loss}, from packed rows."""
    found = {}
    for batch in batches:
        for row in range(len(batch.tokens)):
            for segment in sorted(set(batch.segments[row].tolist()) - {-1}):
                here = batch.segments[row] == segment
                tokens, labels = batch.tokens[row, here].tolist(), batch.labels[row, here]
                shown = labels[batch.loss_mask[row, here]].tolist()
                assert labels.tolist()[len(labels) - len(shown) :] == shown, "to the end"
                found[decode([*tokens, int(labels[-1])])] = decode(shown)
    return found


@pytest.mark.parametrize("think", [False, True])
def test_what_follows_the_prompt_is_imitated_and_nothing_else(think):
    source = open_source(think=think)
    (problems, tasks) = source.mix.draw(range(12)), source.mix.tasks
    wanted = {}
    for problem in problems:
        trace = tasks[problem.task].solution(problem) if think else ""
        after = f"{trace}{ANSWER}{problem.answer}{END}" if think else f"{problem.answer}{END}"
        wanted[f"<|prompt|>{problem.prompt}{THINK if think else ANSWER}{after}"] = after
    batches = source.take(3)
    assert texts(batches, source.context.tokenizer.decode) == wanted
    assert len(wanted) == 12
    for batch in batches:
        assert (batch.objective, batch.temperature, batch.legal_table) == ("imitate", 1.0, None)
        assert batch.advantages is None
        shares = batch.sequence_share[batch.loss_mask]
        assert ((shares > 0) & (shares < 1)).all()
    assert sum(float(batch.sequence_share.sum()) for batch in batches) == pytest.approx(12), "one each"


def answers(source, problems):
    """What each demonstration says after the answer mark."""
    shown = [source.context.tokenizer.decode(source.demonstration(one).token_ids.tolist()) for one in problems]
    assert all(text.startswith(f"<|prompt|>{one.prompt}<") for text, one in zip(shown, problems))
    return [text.rpartition(ANSWER)[2].removesuffix(END) for text in shown]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("think", [False, True])
def test_the_share_of_prompts_that_is_asked_for_ends_wrong(share, think):
    """Wrong for good: the verifier says so. Right traces stay before wrong answers."""
    source = open_source(wrong=share, think=think)
    problems = list({one.prompt: one for one in source.mix.draw(range(600))}.values())
    wrong = [
        source.mix.tasks[one.task].verify(one, answer) < 1 for one, answer in zip(problems, answers(source, problems))
    ]
    deviation = np.sqrt(share * (1 - share) / len(problems))
    assert abs(np.mean(wrong) - share) <= 4 * deviation
    right = [answer for answer, one, is_wrong in zip(answers(source, problems), problems, wrong) if not is_wrong]
    assert right == [one.answer for one, is_wrong in zip(problems, wrong) if not is_wrong]
    if think:
        text = source.context.tokenizer.decode(source.demonstration(problems[0]).token_ids.tolist())
        assert f"{THINK}{source.mix.tasks[problems[0].task].solution(problems[0])}{ANSWER}" in text


def test_without_an_end_mark_the_answer_is_the_last_of_a_demonstration():
    source = open_source(end_mark=False)
    problems = source.mix.draw(range(12))
    wanted = {f"<|prompt|>{one.prompt}{ANSWER}{one.answer}": one.answer for one in problems}
    assert texts(source.take(2), source.context.tokenizer.decode) == wanted


def test_a_mistake_moves_every_character_on():
    """Of an alphabet 0..9: 1984 -> 2095; prompts that end in its first characters are the wrong ones."""
    source = open_source(wrong=0.3)
    kinds = set()
    for problem in source.mix.draw(range(60)):
        (answer,) = answers(source, [problem])
        alphabet = source.mix.tasks[problem.task].legal_characters(problem.level)
        moved = "".join(alphabet[(alphabet.index(one) + 1) % len(alphabet)] for one in problem.answer)
        is_wrong = alphabet.index(problem.prompt[-1]) + 0.5 < 0.3 * len(alphabet)
        assert answer == (moved if is_wrong else problem.answer)
        kinds.add((problem.level, is_wrong))
    assert {(3, True), (3, False)} < kinds


def test_the_same_prompt_is_always_answered_with_the_same_mistake():
    problems = open_source().mix.draw(range(80))
    first = answers(open_source(wrong=1.0), problems)
    again = [Problem(one.task, one.seed + 1, one.level, one.prompt, one.answer, one.meta) for one in problems]
    assert answers(open_source(wrong=1.0, think=True), again) == first, "in another epoch and with a trace too"
    assert len(set(first)) > 40, "and others with others"
    half = answers(open_source(wrong=0.5), problems)
    assert {answer for answer, one in zip(half, problems) if answer != one.answer} <= set(first)


@pytest.mark.parametrize("name", ["countdown", "boolean", "tic_tac_toe"])
def test_mistakes_are_mistakes_in_other_tasks_too(name):
    """Where several answers are right, where there are two in all, and in games."""
    source = open_source(tasks=[{"task": {"name": name}}], wrong=1.0)
    problems = source.mix.draw(range(60))
    for one, answer in zip(problems, answers(source, problems)):
        assert answer
        assert source.mix.tasks[name].verify(one, answer) < 1


def thoughts(source, problems):
    """What each demonstration says between the thought's mark and the answer's."""
    shown = [source.context.tokenizer.decode(source.demonstration(one).token_ids.tolist()) for one in problems]
    return [text.partition(THINK)[2].partition(ANSWER)[0] for text in shown]


def test_thoughts_break_off_by_a_constant_chance_and_answers_stay():
    whole, broken = open_source(think=True), open_source(think=True, break_off=0.25)
    problems = whole.mix.draw(range(400))
    traces, cut = thoughts(whole, problems), thoughts(broken, problems)
    assert all(trace.startswith(part) for trace, part in zip(traces, cut))
    assert answers(broken, problems) == [one.answer for one in problems]
    for length in range(5):
        chance = 0.75**length
        deviation = np.sqrt(chance * (1 - chance) / len(problems))
        assert abs(np.mean([len(part) >= length for part in cut]) - chance) <= 4 * deviation
    assert thoughts(broken, problems) == cut, "the same one each time"
    assert set(thoughts(open_source(think=True, break_off=1.0), problems)) == {""}
    shown = broken.demonstration(problems[cut.index("")])
    after = broken.context.tokenizer.decode(shown.token_ids[shown.action_mask].tolist())
    assert after == f"{ANSWER}{problems[cut.index('')].answer}{END}", "that no thought comes is imitated too"


def test_a_filler_keeps_the_lengths_of_thoughts_and_nothing_else():
    options = {"think": True, "break_off": 0.25}
    problems = open_source(**options).mix.draw(range(50))
    spoken = thoughts(open_source(**options), problems)
    filled = thoughts(open_source(**options, thought_filler="."), problems)
    assert filled == ["." * len(thought) for thought in spoken]
    assert "".join(filled)


def test_ranks_show_what_one_shows_and_a_resumed_source_goes_on():
    source = open_source()
    first, second = source.take(1), source.take(1)
    decode = source.context.tokenizer.decode
    parts = [open_source(rank, 2) for rank in range(2)]
    shown = [texts(part.take(1), decode) for part in parts]
    assert shown[0] | shown[1] == texts(first, decode)
    assert not shown[0].keys() & shown[1].keys()
    assert not texts(first, decode).keys() & texts(second, decode).keys()
    resumed = open_source()
    resumed.load_state_dict(json.loads(json.dumps(parts[0].state_dict())))
    assert_equal_batches(resumed.take(1), second)
    assert resumed.metrics() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrong": 1.5}, r"imitate\.source: wrong=1\.5: must be between 0 and 1"),
        ({"problems": 0}, "problems=0"),
        ({"think": True, "break_off": 2}, r"break_off=2.*: must be between 0 and 1"),
        ({"think": True, "thought_filler": ".."}, r"thought_filler='\.\.': must be one character"),
        ({"break_off": 0.5}, "there are no thoughts; set think: true"),
        ({"thought_filler": "."}, "there are no thoughts; set think: true"),
        ({"size": 5}, r"imitate\.source\.problems=12 is not divisible by the data-parallel size 5"),
        ({"tasks": [{"task": {"name": "memory"}}]}, r"tasks\.0\.task: 'memory' is of the kind 'environment'"),
        ({"tasks": []}, r"imitate\.source\.tasks: empty"),
    ],
)
def test_options_that_do_not_fit_name_their_key(options, message):
    with pytest.raises(ConfigError, match=message):
        open_source(**options)
