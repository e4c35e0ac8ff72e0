"""The list families against cases worked by hand and oracles computed another way."""

import re

import pytest
from helpers.tasks import problems
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task
from rlpt.tasks.lists.copy import PRINTABLE, symbol_alphabet
from rlpt.template import encode_marked, parse_answer
from rlpt.types import Problem


def make(name, **options):
    return create_task({"name": name, **options})


def all_problems(task, count=20):
    return [problem for level in range(task.max_level + 1) for problem in problems(task, level, count)]


def test_copy_trace_and_oracle():
    task = make("copy")
    problem = Problem("copy", 0, 3, "copy 3142", "3142", {"text": "3142"})
    assert task.solution(problem) == "1:3 2:1 3:4 4:2"
    assert [task.verify(problem, answer) for answer in ("", "1", "3", "3141", "3142")] == pytest.approx(
        [0, 0, 0.9 / 4, 0.9 * 3 / 4, 1]
    )
    assert all(p.answer == p.prompt.removeprefix("copy ") for p in all_problems(task))


def test_alphabet_begins_with_printable_ascii():
    assert "".join(chr(code) for code in range(33, 127)) == PRINTABLE
    assert symbol_alphabet(3) == '!"#'
    large = symbol_alphabet(256)
    assert large == PRINTABLE + "".join(chr(0x100 + i) for i in range(256 - 94))
    assert len(set(symbol_alphabet(4096))) == len(symbol_alphabet(4096).split()[0]) == 4096, "no white space"


def test_copy_over_many_symbols():
    task, digits = make("copy", symbols=256, lengths=(2, 3, 16)), make("copy")
    assert task.alphabet == symbol_alphabet(256)
    assert digits.alphabet == "0123456789", "the class's alphabet stays"
    seen = set()
    for level, length in enumerate((2, 3, *[16] * 8)):
        assert task.answer_limit(level) == length
        assert task.legal_characters(level) == task.alphabet
        for problem in problems(task, level, 40):
            seen |= set(problem.answer)
            assert len(problem.answer) == length
            assert task.verify(problem, problem.answer) == 1
            trace = task.solution(problem)
            assert set(trace) <= set(task.thought_alphabet)
            assert task.verify_steps(problem, trace) == [1] * length
            text = task.document(problem, trace)
            tokenizer = CharacterTokenizer()
            assert tokenizer.decode(encode_marked(tokenizer, text)) == text
            assert parse_answer(text) == problem.answer
    assert seen == set(task.alphabet)
    problem = Problem("copy", 0, 0, "copy \u0100!", "\u0100!", {"text": "\u0100!"})
    assert task.verify(problem, "\u0100\u0101") == pytest.approx(0.45)
    assert task.verify(problem, "\u0100\u01ff") == 0, "beyond the alphabet"
    assert digits.verify(problem, "\u0100!") == 0


def test_copy_options_alone():
    assert [make("copy", lengths=(5,)).answer_limit(level) for level in (0, 9)] == [5, 5]
    assert make("copy", lengths=(5,)).legal_characters(0) == "012"
    assert [make("copy", symbols=2).answer_limit(level) for level in (0, 9)] == [1, 16]
    assert make("copy", symbols=2).legal_characters(9) == '!"'


@pytest.mark.parametrize(
    "options",
    [
        {"symbols": 1},
        {"symbols": -3},
        {"symbols": 5000},
        {"lengths": (0, 1)},
        {"lengths": (3, 2)},
        {"lengths": (1,) * 11},
    ],
)
def test_copy_refuses_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make("copy", **options)


def test_unique():
    task = make("unique")
    problem = Problem("unique", 0, 4, "unique 31413", "314", {"text": "31413"})
    assert task.transform("31413") == "314"
    assert task.solution(problem) == "3+ 1+ 4+ 1- 3-"
    assert task.verify_steps(problem, "3+ 1+ 4- 1- 3- 2+") == [1, 1, 0, 1, 1, 0]
    scores = [task.verify(problem, answer) for answer in ("1", "3", "31413", "31", "314")]
    assert scores == pytest.approx([0, 0.3, 0.54, 0.6, 1])
    assert [task.answer_limit(level) for level in (0, 4, 9)] == [1, 5, 10]
    for problem in all_problems(task):
        text, rest = problem.prompt.split()[1], problem.prompt.split()[1]
        expected = ""
        while rest:
            expected, rest = expected + rest[0], rest.replace(rest[0], "")
        assert problem.answer == expected
        assert len(task.solution(problem).split()) == len(text)


def test_count():
    task = make("count")
    problem = Problem("count", 0, 4, "count 31413: 152", "200", {"text": "31413", "asked": "152"})
    assert task.solution(problem) == "1@2 1@4 1=2 5=0 2=0"
    assert task.verify_steps(problem, "5=0 1@4 1@2 1=2 2=0") == [1] * 5, "any order"
    assert task.verify_steps(problem, "1@2 1@2 1@3 1=3 3@1 3=2 2=0") == [1, 0, 0, 0, 0, 0, 1]
    assert [task.verify(problem, answer) for answer in ("1", "2", "210", "200", "2000")] == pytest.approx(
        [0, 0.3, 0.6, 1, 0]
    )
    for problem in all_problems(task):
        text, asked = re.fullmatch(r"count (\d+): (\d+)", problem.prompt).groups()
        assert problem.answer == "".join(str(len(text) - len(text.replace(digit, ""))) for digit in asked)
        assert len(set(asked)) == len(asked) == len(problem.answer)
    assert {problem.answer for problem in problems(task, 0, 200)} == {"0", "1", "2"}


def test_rotate():
    task = make("rotate")
    problem = Problem("rotate", 0, 4, "rotate 2: 31425", "42531", {"text": "31425", "shift": 2})
    assert task.solution(problem) == "3:4 4:2 5:5 1:3 2:1"
    assert task.verify(problem, "31425") == 0
    assert task.verify(problem, "42513") == pytest.approx(0.9 * 3 / 5)
    shifts = set()
    for problem in all_problems(task):
        shift, text = re.fullmatch(r"rotate (\d+): (\d+)", problem.prompt).groups()
        expected = list(text)
        for _ in range(int(shift)):
            expected.append(expected.pop(0))
        assert problem.answer == "".join(expected)
        assert "".join(step.split(":")[1] for step in task.solution(problem).split()) == problem.answer
        shifts.add((len(text), int(shift)))
    assert {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)} <= shifts


def test_cumulative_sum():
    task = make("cumulative_sum")
    problem = Problem("cumulative_sum", 0, 3, "cumulative_sum 3147", "3485", {"text": "3147"})
    assert task.transform("3147") == "3485"
    assert task.solution(problem) == "0+3=3 3+1=4 4+4=8 8+7=15"
    assert [task.verify(problem, answer) for answer in ("4", "3", "348", "3485")] == pytest.approx([0, 0.225, 0.675, 1])
    assert [task.legal_characters(level) for level in (0, 1, 2)] == ["012", "0123456", "0123456789"]
    for problem in all_problems(task):
        text = problem.prompt.split()[1]
        assert problem.answer == "".join(str(sum(map(int, text[: i + 1])))[-1] for i in range(len(text)))


def test_modular_sum():
    task = make("modular_sum")
    problem = Problem("modular_sum", 0, 5, "", "101", {"groups": ["314", "25", "96"], "modulus": 7})
    assert task.solution(problem) == "0+3=3 3+1=4 4+4=1 0+2=2 2+5=0 0+9=2 2+6=1"
    assert [task.verify(problem, answer) for answer in ("0", "1", "111", "101", "1010")] == pytest.approx(
        [0, 0.3, 0.6, 1, 0]
    )
    for problem in all_problems(task):
        modulus, groups = re.fullmatch(r"modular_sum (\d+): ([\d ]+)", problem.prompt).groups()
        for answer, group in zip(problem.answer, groups.split(), strict=True):
            assert (sum(map(int, group)) - int(answer)) % int(modulus) == 0
            assert int(answer) < int(modulus)
