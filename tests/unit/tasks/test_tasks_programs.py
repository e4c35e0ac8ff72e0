"""Deduction, abduction and induction, and the micro-languages that they are about."""

import itertools
import random

import pytest

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.esolangs.brainfuck import COMMANDS
from rlpt.tasks.programs.language import BETWEEN, GIVES, UNKNOWN, language

LANGUAGES = [  # without those that other tests register
    name for name in registry.names("language") if registry.lookup("language", name).__module__.startswith("rlpt.")
]
MODES = ("deduction", "abduction", "induction")


@pytest.fixture(params=itertools.product(MODES, LANGUAGES), ids="-".join)
def task(request):
    name, spoken = request.param
    return create_task({"name": name, "language": spoken})


def test_languages_are_registered():
    assert {"stack", "brainfuck"} <= set(LANGUAGES)


def test_stack_machine_by_hand():
    run = language("stack").run
    assert run("34+", "12") == "127"
    assert run("ds*", "7") == "9"
    assert run("p", "12") == "1"
    assert [run(program, "1") for program in ("p", "+", "s", "*", "x", "1x")] == [None] * 6
    assert run("d", "a") is None
    assert run("0" * 64, "1") is not None
    assert run("0" * 65, "1") is None
    assert language("stack").trace("34+", "12") == ["3123", "41234", "+127"]


def test_brainfuck_by_hand():
    run = language("brainfuck").run
    assert run(",+.", "3") == "4"
    assert run(",>,<.>.", "12") == "12"
    assert run(",[->++<]>.", "4") == "8"
    assert run(",-.", "0") is None, "255 is no digit"
    assert run("+[]", "0") is None, "does not end"
    assert run("<", "0") is None, "off the tape"
    assert run("[.", "0") is None, "no program"
    assert run(",.", "a") is None
    assert language("brainfuck").trace(",+.", "3") == [",3", ".4"]


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_text_is_run_to_an_end(name):
    spoken, rng = language(name), random.Random(0)
    characters = spoken.levels[-1].commands + "x "
    for _ in range(500):
        program = "".join(rng.choice(characters) for _ in range(rng.randrange(30)))
        output = spoken.run(program, "123")
        assert output is None or len(output) <= 67
        assert spoken.run(program, "123") == output


@pytest.mark.parametrize("name", LANGUAGES)
def test_levels_never_shrink_and_the_identity_is_one(name):
    spoken = language(name)
    assert len(spoken.levels) == 10
    for smaller, larger in itertools.pairwise(spoken.levels):
        assert smaller.program < larger.program
        assert (smaller.given, smaller.output) <= (larger.given, larger.output)
        assert set(smaller.commands) <= set(larger.commands)
        assert set(smaller.values) <= set(larger.values)
    assert not set(spoken.levels[-1].commands + spoken.levels[-1].values) & set(BETWEEN + GIVES + UNKNOWN)
    program, given = spoken.identity
    assert spoken.run(program, given) == given
    assert spoken.output(program, given, 2) == given


def test_what_is_beyond_the_limits_has_no_output():
    spoken = language("stack")
    assert spoken.output("+", "11", 0) is None, "2 is no value of level 0"
    assert spoken.output("+", "10", 0) == "1"
    assert spoken.output("++", "10", 0) is None, "too long a program"
    assert spoken.output("d", "10", 0) is None, "no command of level 0"
    assert spoken.output("+", "100", 0) is None, "too long an input"
    assert spoken.output("dd", "11", 1) is None, "too long an output"
    assert spoken.output("", "10", 1) is None
    assert spoken.output("p", "", 1) is None


def test_problems_of_all_languages_have_an_oracle(task):
    for level in range(task.max_level + 1):
        for index in range(10):
            problem = task.sample(train_seed(1, index), level)
            assert task.sample(train_seed(1, index), level) == problem
            assert task.verify(problem, problem.answer) == 1
            assert set(problem.answer) <= set(task.legal_characters(level))
            assert set(task.legal_characters(level)) <= set(task.alphabet)
            trace = task.solution(problem)
            assert set(trace) <= set(task.thought_alphabet)
            assert task.verify_steps(problem, trace) == [1.0] * len(trace.split())


def test_problem_of_a_given_triplet():
    deduction, abduction, induction = (create_task({"name": name}) for name in MODES)
    problem = deduction.problem_of("34+", ["12"], ["127"], 3, seed=7)
    assert (problem.prompt, problem.answer, problem.seed) == ("34+:12=?", "127", 7)
    assert deduction.verify(problem, "127") == 1
    assert deduction.verify(problem, "117") == pytest.approx(0.6)

    problem = abduction.problem_of("*", ["26"], ["2"], 3, seed=7)
    assert problem.prompt == "*:?=2"
    assert [abduction.verify(problem, given) for given in ("26", "34", "12", "21")] == [1, 1, 1, 1]
    assert 0 < abduction.verify(problem, "112") < abduction.verify(problem, "12")
    assert abduction.verify(problem, "2") == 0, "does not run"

    inputs = ["12", "45", "30", "77", "01", "99"]
    outputs = induction.outputs("+", inputs, 3)
    assert outputs == ["3", "9", "3", "4", "1", "8"]
    problem = induction.problem_of("+", inputs, outputs, 3, seed=7)
    assert problem.prompt == "?:12=3 45=9 30=3"
    assert [induction.verify(problem, program) for program in ("+", "s+", "0++")] == [1, 1, 1]
    assert 0 < induction.verify(problem, "*") < 0.9, "right for some of the hidden ones at the most"
    assert induction.verify(problem, "pp") == 0


def test_induction_asks_about_hidden_inputs():
    """A program that only repeats what was shown is not right."""
    task = create_task({"name": "induction"})
    problem = task.problem_of("*", ["22", "00", "20", "35", "57", "99"], ["4", "0", "0", "5", "5", "1"], 3, seed=0)
    assert task.verify(problem, "*") == 1
    assert task.micro.run("+", "22") == "4"
    assert task.verify(problem, "+") < 0.9


def test_proposals_are_read_as_they_are_written(task):
    level, rng = 3, random.Random(1)
    for index in range(20):
        program, given = task.micro.draft(rng, level), task.inputs(index, level)[0]
        text = task.write(program, given)
        assert task.read(text) == (program, given if task.proposes_input else "")
        assert len(text) <= task.proposal_limit(level)
        assert set(text) <= set(task.proposal_characters(level))
    assert task.read("") is None
    assert task.read(":1") is None
    assert task.read("1:") is None
    assert task.read("1:1:1") is None
    assert (task.read("1:1") is None) == (task.name == "induction")
    assert (task.read("1") is None) == (task.name != "induction")


def test_drawn_inputs_hang_on_the_key_alone():
    task = create_task({"name": "induction"})
    assert task.inputs(3, 4) == task.inputs(3, 4) != task.inputs(4, 4)
    assert len(task.inputs(3, 4)) == 6


def test_proposal_characters_are_known_to_mixed_alphabets():
    assert set(COMMANDS) <= set(create_task({"name": "induction"}).alphabet)


def test_unknown_language_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"unknown language 'stak'; did you mean 'stack'"):
        create_task({"name": "deduction", "language": "stak"})
