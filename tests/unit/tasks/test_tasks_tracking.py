"""Permutations, automata, parities, brackets and stack programs: cases worked by hand and independent computations."""

import re

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.tracking.automaton import run
from rlpt.tasks.tracking.brackets import CLOSER, owed_after_each
from rlpt.tasks.tracking.permutation import apply
from rlpt.tasks.tracking.stack_machine import execute, stacks
from rlpt.types import Problem


def samples(name, levels=range(10), count=20):
    task = create_task({"name": name})
    return [(task, task.sample(train_seed(11, index), level)) for level in levels for index in range(count)]


def test_permutation_by_hand():
    assert apply("213", "cab") == "acb"
    assert apply("321", "acb") == "bca"
    rows = ["cab", "acb", "bca"]
    task, problem = create_task({"name": "permutation"}), Problem("permutation", 0, 1, "", "ba", {"rows": rows})
    assert task.solution(problem) == "acb bca"
    assert task.verify_steps(problem, "acb bac bca") == [1, 0, 0]
    assert [task.verify(problem, answer) for answer in ("cc", "bc", "ba")] == [0, pytest.approx(0.45), 1]


def test_permutation_agrees_with_the_composed_map():
    for _, problem in samples("permutation"):
        start, *permutations, asked = problem.prompt.replace(":", "").split()[1:]
        for place, letter in zip(asked[1:], problem.answer, strict=True):
            at = int(place)
            for permutation in reversed(permutations):  # where the letter came from, last permutation first
                at = int(permutation[at - 1])
            assert start[at - 1] == letter


def test_automaton_by_hand():
    task = create_task({"name": "automaton"})
    assert run({"A": "BC", "B": "AA", "C": "CB"}, "01101") == "BACCB"
    problem = Problem("automaton", 0, 3, "", "AC", {"text": "0110", "states": "BACC"})
    assert task.solution(problem) == "A0B B1A A1C C0C"
    assert task.verify_steps(problem, "A0B B1A A1B C0C") == [1, 1, 0, 1]
    assert [task.verify(problem, answer) for answer in ("B", "AB", "AC")] == [0, pytest.approx(0.45), 1]


def test_automaton_agrees_with_a_run_read_from_the_prompt():
    for _, problem in samples("automaton"):
        *rows, marked = problem.prompt.split()[1:]
        table = {(row[0], str(symbol)): state for row in rows for symbol, state in enumerate(row[2:])}
        state, found = "A", ""
        for character in marked:
            if character == "?":
                found += state
            else:
                state = table[state, character]
        assert found == problem.answer
        assert marked.endswith("?")


def test_brackets_by_hand():
    assert owed_after_each("([]{") == [")", "])", ")", "})"]
    assert owed_after_each("()") == [")", ""]
    task, problem = create_task({"name": "brackets"}), Problem("brackets", 0, 3, "", "})", {"text": "()({"})
    assert task.solution(problem) == ") - ) })"
    assert task.verify_steps(problem, ") ) ) })") == [1, 0, 1, 1]
    assert [task.verify(problem, answer) for answer in ("])", "})", "})]")] == [
        pytest.approx(0.45),
        1,
        pytest.approx(0.6),
    ]


def test_completed_brackets_cancel():
    for _, problem in samples("brackets"):
        text = problem.prompt.split()[1] + problem.answer
        pairs = re.compile("|".join(re.escape(opening + closing) for opening, closing in CLOSER.items()))
        while (shorter := pairs.sub("", text)) != text:
            text = shorter
        assert text == ""


@pytest.mark.parametrize(
    ("operation", "stack", "after"),
    [
        ("7", "", "7"),
        ("add", "158", "13"),
        ("mul", "178", "16"),
        ("mul", "05", "0"),
        ("dup", "12", "122"),
        ("swap", "123", "132"),
        ("pop", "12", "1"),
    ],
)
def test_stack_operations(operation, stack, after):
    assert execute(operation, stack) == after


def test_stack_machine_by_hand():
    program = ["3", "4", "add", "dup", "2", "mul"]
    assert stacks(program) == ["3", "34", "7", "77", "772", "74"]
    task = create_task({"name": "stack_machine"})
    problem = Problem("stack_machine", 0, 1, "", "74", {"program": program})
    assert task.solution(problem) == "3 34 7 77 772 74"
    assert task.verify_steps(problem, "3 34 8 77") == [1, 1, 0, 1]
    assert [task.verify(problem, answer) for answer in ("4", "7", "72", "74")] == [0, *[pytest.approx(0.45)] * 2, 1]


def test_stack_programs_agree_with_a_list():
    for _, problem in samples("stack_machine"):
        items: list[int] = []
        for word in problem.prompt.split()[1:]:
            if word in ("add", "mul"):
                top, second = items.pop(), items.pop()
                items.append((top + second if word == "add" else top * second) % 10)
            elif word == "pop":
                items.pop()
            elif word == "swap":
                items[-2:] = reversed(items[-2:])
            else:
                items.append(items[-1] if word == "dup" else int(word))
        assert problem.answer == "".join(map(str, items)), problem.prompt


def test_parity_by_hand():
    task, problem = create_task({"name": "parity"}), Problem("parity", 0, 3, "", "00", {"words": ["0110", "101"]})
    assert task.solution(problem) == "0100 110"
    assert task.verify_steps(problem, "0100 111 0") == [1, 0, 0]
    assert [task.verify(problem, answer) for answer in ("11", "10", "00")] == [0, pytest.approx(0.9 / 4), 1]
    long = create_task({"name": "parity", "groups": 2, "bits": 5}).sample(train_seed(11, 0), 0)
    assert re.fullmatch(r"parity [01]{5} [01]{5}", long.prompt)
    with pytest.raises(ConfigError, match="bits=-1: must be 0 or more"):
        create_task({"name": "parity", "bits": -1})


def test_parity_agrees_with_counting_and_ends_its_trace():
    for task, problem in samples("parity"):
        words = problem.prompt.split()[1:]
        assert problem.answer == "".join(str(sum(map(int, word)) % 2) for word in words)
        assert "".join(step[-1] for step in task.solution(problem).split()) == problem.answer
