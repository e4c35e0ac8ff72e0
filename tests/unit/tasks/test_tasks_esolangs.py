"""Both interpreters against slow ones written apart from them, and the tasks about programs against worked cases."""

import dataclasses
import json
import random
import time

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.esolangs import befunge, brainfuck
from rlpt.tasks.esolangs.befunge_factorial import program_pieces as factorial_pieces
from rlpt.tasks.esolangs.befunge_fibonacci import program_pieces as fibonacci_pieces
from rlpt.tasks.esolangs.befunge_fibonacci import terms
from rlpt.tasks.esolangs.brainfuck_sort import PROGRAMS, VARIANTS
from rlpt.types import Problem

WRITING = ["bf_copy", "bf_print", "bf_sort", "befunge_print", "befunge_fibonacci", "befunge_factorial"]


def numbers(text):
    return "".join(map(chr, text))


def plain_brainfuck(program, given, limits):
    """(output, steps, ended), one command at a time."""
    match, stack = {}, []
    for at, command in enumerate(program):
        if command == "[":
            stack.append(at)
        elif command == "]":
            if not stack:
                return "", 0, "syntax"
            match[at] = stack.pop()
            match[match[at]] = at
    if stack:
        return "", 0, "syntax"
    tape, output, pointer, at, read, steps = [0] * limits.tape, "", 0, 0, 0, 0
    ended = "end"
    while at < len(program) and ended == "end":
        command, steps = program[at], steps + 1
        if command in "<>":
            pointer += 1 if command == ">" else -1
            ended = "end" if 0 <= pointer < limits.tape else "tape"
        elif command in "+-":
            tape[pointer] = (tape[pointer] + (1 if command == "+" else -1)) % 256
        elif command == ".":
            ended = "end" if len(output) < limits.output else "output"
            output += chr(tape[pointer]) * (ended == "end")
        elif command == ",":
            tape[pointer] = ord(given[read]) if read < len(given) else 0
            read += 1
        elif command == "[" and not tape[pointer]:
            at = match[at]
        elif command == "]":
            if steps > limits.steps:
                ended = "steps"
            elif tape[pointer]:
                at = match[at]
        at += 1
    return output, min(steps, limits.steps), ended


def random_brainfuck(rng, length, depth=0):
    text = ""
    while len(text) < length:
        if rng.random() < 0.2 and depth < 4:
            text += f"[{random_brainfuck(rng, rng.randrange(8), depth + 1)}]"
        else:
            text += rng.choice("+-<>>.,+") * rng.choice((1, 1, 2, 3))
    return text


def test_brainfuck_equals_the_plain_interpreter():
    rng, ends = random.Random(1), set()
    for i in range(6000):
        if i % 4:
            program = random_brainfuck(rng, rng.randrange(1, 40))
        else:
            program = "".join(rng.choice(brainfuck.COMMANDS) for _ in range(rng.randrange(12)))
        limits = brainfuck.Limits(rng.choice((10, 50, 300, 1000)), rng.choice((2, 4, 16)), rng.choice((1, 4, 32)))
        given = numbers(rng.choice((1, 2, 3, 97, 255)) for _ in range(rng.randrange(5)))
        run = brainfuck.run(program, given, limits)
        assert (run.output, run.steps, run.ended) == plain_brainfuck(program, given, limits), (program, given, limits)
        ends.add(run.ended)
    assert ends == {"end", "steps", "tape", "output", "syntax"}


@pytest.mark.parametrize(
    ("program", "given", "output"),
    [
        (",[.,]", "cat", "cat"),
        ("++++++++[>+++++++++<-]>.+++++++++++++++++++++++++++++++++.", "", "Hi"),
        (">,[>,]<[.<]", "abc", "cba"),
        ("-.", "", "\xff"),
        (",>,<[->[->+>+<<]>>[-<<+>>]<<<]>>.", "\x06\x07", "*"),
        (",[->+++<]>.", "\x0b", "!"),
        (",[--].", "\x04", "\0"),
        (",[+++].", "\x01", "\0"),
        (",.,.", "a", "a\0"),
        ("", "", ""),
    ],
)
def test_brainfuck_programs(program, given, output):
    run = brainfuck.run(program, given)
    assert (run.output, run.ended) == (output, "end")


def test_brainfuck_steps_cells_and_reads():
    run = brainfuck.run(",>,.<..", "ab")
    assert run == brainfuck.Run("baa", 7, "end", ord("a"), (2, 2, 2))
    assert brainfuck.run("+++[-]").steps == 3 + 1 + 3 * 2
    assert brainfuck.run("+>+>+<<[>]").steps == 8 + 1 + 3 * 2 - 1


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("+[]", "steps"),
        ("+[><]", "steps"),
        ("+[--]", "steps"),
        ("+[>+<]", "steps"),
        ("+[.]", "output"),
        ("+[>+]", "tape"),
        ("<", "tape"),
        (">" * 1000, "tape"),
        ("[", "syntax"),
        ("]", "syntax"),
        ("][", "syntax"),
        ("+[[-]", "syntax"),
        ("a", "syntax"),
        ("+ +", "syntax"),
        ("[" * 50_000, "syntax"),
        ("+" + "[" * 20_000 + "]" * 20_000, "steps"),
        ("+[" + ">+[" * 60 + "]" * 61, "steps"),
    ],
    ids=lambda value: value[:12],
)
def test_hostile_brainfuck_is_bounded(program, ended):
    start = time.perf_counter()
    run = brainfuck.run(program)
    assert run.ended == ended
    assert len(run.output) <= brainfuck.LIMITS.output
    assert run.steps <= brainfuck.LIMITS.steps
    assert time.perf_counter() - start < 2


def test_sort_programs():
    rng = random.Random(2)
    for _ in range(60):
        given = [rng.randint(1, 9) for _ in range(rng.randint(1, 9))]
        for way, pieces in PROGRAMS.items():
            run = brainfuck.run("".join(pieces), numbers(given))
            assert (run.output, run.ended) == (numbers(sorted(given, reverse=way == "down")), "end")
        up, down, once, twice, down_twice = (brainfuck.run(text, numbers(given)).output for text in VARIANTS)
        assert (up, down) == (numbers(sorted(given)), numbers(sorted(given)[::-1]))
        assert once == numbers(sorted(set(given)))
        assert (twice, down_twice) == (numbers(sorted(given * 2)), numbers(sorted(given * 2)[::-1]))


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("0.1.2.3.4.5.6.7.8.9.@", "0 1 2 3 4 5 6 7 8 9 "),
        ("52+.52-.52*.52/.52%.@", "7 3 10 2 1 "),
        ("05-2/.05-2%.@", "-2 -1 "),
        ("50/.50%.@", "0 0 "),
        ("0!.7!.@", "1 0 "),
        ("52`.25`.22`.@", "1 0 0 "),
        (">1.@", "1 "),
        ("<@.2", "2 "),
        ("v;3;.;@", "3 "),
        ("^;@;.;4", "4 "),
        ("0_5.@", "5 "),
        ("1_@.6", "6 "),
        ("0v; |; 8; .; @", "8 "),
        ("91v;  |;  8;  .;  @", "8 "),
        ('"ba",,@', "ab"),
        ("3:..@", "3 3 "),
        ("12\\..@", "1 2 "),
        ("12$.@", "1 "),
        ("8#9.@", "8 "),
        ("00g.@", "48 "),
        ("99g.@", "0 "),
        ("500p00g.@", "5 "),
        ("599p0.@", "0 "),
        ("955+5+:*p.@", "0 "),
        ("&&&.. .@", "0 -7 12 "),
        ("~,~.~.@", "150 -1 "),
        ("  z=[9.@", "9 "),
        ("..@", "0 0 "),
        ("99*:*:*:*.@", "-501334399 "),
    ],
)
def test_befunge_instructions(program, output):
    run = befunge.run(program, "12 -7" if "&" in program else "12")
    assert (run.output, run.ended) == (output, "end")


def test_befunge_numbers_wrap_at_32_bits():
    assert [befunge.wrapped(value) for value in (2**31 - 1, 2**31, -(2**31) - 1, 81**8)] == [
        2**31 - 1,
        -(2**31),
        2**31 - 1,
        (81**8 + 2**31) % 2**32 - 2**31,
    ]
    assert befunge.calculate(ord("/"), -(2**31), -1) == -(2**31)
    assert befunge.run("&1+.@", "2147483647").output == "-2147483648 "


def test_befunge_branch_turns_up_for_other_than_zero():
    assert befunge.run("0v; |; 8; .; @").steps == 6
    assert befunge.run("91v;  |;  8;  .;  @").steps == 11, "twice up onto the v"


def test_befunge_random_turns_depend_on_the_key():
    program = "?1.@;2 3 ;. .;@ @"
    outputs = [befunge.run(program, key=key).output for key in range(40)]
    assert outputs == [befunge.run(program, key=key).output for key in range(40)]
    assert len(set(outputs)) > 1


def plain_befunge(program, given, limits):
    """(output, steps, ended) by coordinates, one cell at a time; without `?` and `&`."""
    rows = program.split(";")
    width, height = max(map(len, rows)), len(rows)
    grid = {(x, y): ord(row[x]) if x < len(row) else 32 for y, row in enumerate(rows) for x in range(width)}
    x, y, right, down, stack, output, string, read = 0, 0, 1, 0, [], "", False, 0

    def pop():
        return stack.pop() if stack else 0

    for steps in range(1, limits.steps + 1):
        cell = chr(grid[x, y]) if 0 <= grid[x, y] < 128 else " "
        if cell == '"':
            string = not string
        elif string:
            stack.append(grid[x, y])
        elif cell in "0123456789":
            stack.append(int(cell))
        elif cell in "+-*/%`":
            b, a = pop(), pop()
            signed = 1 if a * b >= 0 else -1
            quotient = signed * (abs(a) // abs(b)) if b else 0
            value = {"+": a + b, "-": a - b, "*": a * b, "/": quotient, "`": int(a > b)}.get(
                cell, a - quotient * b if b else 0
            )
            stack.append((value + 2**31) % 2**32 - 2**31)
        elif cell in "><^v":
            right, down = {">": (1, 0), "<": (-1, 0), "^": (0, -1), "v": (0, 1)}[cell]
        elif cell == "_":
            right, down = (-1 if pop() else 1), 0
        elif cell == "|":
            right, down = 0, (-1 if pop() else 1)
        elif cell == "!":
            stack.append(int(pop() == 0))
        elif cell == ":":
            top = pop()
            stack += [top, top]
        elif cell == "\\":
            b, a = pop(), pop()
            stack += [b, a]
        elif cell == "$":
            pop()
        elif cell in ".,":
            value = pop()
            printed = f"{value} " if cell == "." else chr(value % 256)
            if len(output + printed) > limits.output:
                return output, steps, "output"
            output += printed
        elif cell == "#":
            x, y = (x + right) % width, (y + down) % height
        elif cell == "g":
            b, a = pop(), pop()
            stack.append(grid.get((a, b), 0))
        elif cell == "p":
            b, a = pop(), pop()
            value = pop()
            grid.update({(a, b): value} if (a, b) in grid else {})
        elif cell == "~":
            stack.append(ord(given[read]) if read < len(given) else -1)
            read += 1
        elif cell == "@":
            return output, steps, "end"
        x, y = (x + right) % width, (y + down) % height
        if len(stack) > limits.stack:
            return output, steps, "stack"
    return output, limits.steps, "steps"


def test_befunge_equals_the_plain_interpreter():
    rng, ends = random.Random(3), set()
    characters = befunge.INSTRUCTIONS.replace("?", "").replace("&", "")
    for i in range(6000):
        favoured = characters + "@@;;" + ("0123456789p~g:_" * 2 if i % 2 else "><^v#|_.")
        program = "".join(rng.choice(favoured) for _ in range(rng.randrange(1, 30)))
        if set(program) == {";"}:
            continue
        limits = befunge.Limits(rng.choice((20, 100, 400)), rng.choice((3, 16)), rng.choice((4, 40)))
        run = befunge.run(program, "a1", limits)
        assert (run.output, run.steps, run.ended) == plain_befunge(program, "a1", limits), (program, limits)
        ends.add(run.ended)
    assert ends == {"end", "steps", "stack", "output"}


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        (">", "steps"),
        ("1", "stack"),
        ('"a', "stack"),
        ("1:.", "output"),
        ("><", "steps"),
        (":*2+", "steps"),
        ("?" * 80, "steps"),
        ("~", "stack"),
        ("9" * 81, "syntax"),
        (";" * 25, "syntax"),
        ("", "syntax"),
        ("\n1.@", "syntax"),
        ("\u0661.@", "syntax"),
        ("1" * 100_000, "syntax"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_hostile_befunge_is_bounded(program, ended):
    run = befunge.run(program)
    assert run.ended == ended
    assert len(run.output) <= befunge.LIMITS.output
    assert run.steps <= befunge.LIMITS.steps
    assert len(run.stack) <= befunge.LIMITS.stack + 1


def test_number_programs():
    factorial, fibonacci = "".join(factorial_pieces(1, 0, 1)), "".join(fibonacci_pieces(1, 1))
    for n, expected in enumerate((1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880)):
        assert befunge.run(factorial, str(n)).output == f"{expected} "
        assert befunge.run(fibonacci, str(n)).output.split() == ["1", "1", "2", "3", "5", "8", "13", "21", "34"][:n]
    assert befunge.run("".join(factorial_pieces(3, 4, 2)), "3").output == "44 "
    assert terms(2, 5, 5, 1) == [2, 5, 8, 14, 23]


def problem_of(name, level, seed=0):
    task = create_task({"name": name})
    return task, task.sample(train_seed(3, seed), level)


@pytest.mark.parametrize("name", WRITING)
def test_given_beginning_and_answer_make_the_program(name):
    for level in range(10):
        for seed in range(5):
            _, problem = problem_of(name, level, seed)
            meta = problem.meta
            assert json.loads(json.dumps(meta)) == meta
            assert problem.prompt.endswith(meta["before"] or ":")
            assert meta["cases"][0][1] in problem.prompt
            assert "print" in name or len({given for given, _ in meta["cases"]}) > 1
        assert (meta["before"] == "") or level < 9


def test_a_constant_is_no_copy_and_no_sort():
    for name in ("bf_copy", "bf_sort"):
        task, problem = problem_of(name, 9)
        given, expected = problem.meta["cases"][0]
        program, at = "", 0
        for character in task.encode(expected):
            program += "+" * ((ord(character) - at) % 256) + "."
            at = ord(character)
        assert task.outcome(program, given) == (expected, "end")
        constant = dataclasses.replace(problem, meta={**problem.meta, "before": program[:-1]})
        assert 0.3 < task.verify(constant, ".") < 0.9


def test_other_programs_are_right_too():
    task, problem = problem_of("bf_print", 7)
    first, second = (ord(letter) for letter in problem.meta["cases"][0][1])
    other = "++++++[>++++++++++++++++<-]>" + "+" * (first - 96) + "."
    other += "+" * (second - first) + "-" * (first - second) + "."
    assert other != problem.answer
    assert task.verify(problem, other) == 1
    task, problem = problem_of("befunge_print", 4)
    text = problem.meta["cases"][0][1]
    assert task.verify(problem, f'"{text[::-1]}">:#,_@') == 1
    task, problem = problem_of("bf_copy", 6)
    assert task.verify(problem, ">" + problem.answer) == 1


def test_credit_climbs_for_programs():
    task = create_task({"name": "bf_copy"})
    meta = {"before": "", "pieces": [",", "."] * 2, "cases": [["ab", "ab"], ["cd", "cd"], ["ef", "ef"]]}
    problem = Problem("bf_copy", 0, 2, "bf_copy ab=ab:", ",.,.", meta)
    scores = [task.verify(problem, answer) for answer in ("[", "+", ",.", ",.,.")]
    assert scores == sorted(set(scores))
    assert scores[0] == 0
    assert scores[1] == pytest.approx(0.9 * 0.15), "it stops by itself"
    assert scores[2] == pytest.approx(0.9 * (0.15 + 0.85 / 2))
    assert scores[3] == 1
    task, problem = problem_of("bf_print", 2)
    wrong = "-" if problem.answer[0] == "+" else "+"
    assert 0.3 < task.verify(problem, wrong * 3 + ".") < task.verify(problem, wrong + ".") < 0.9


def test_endless_programs_are_not_right():
    task, problem = problem_of("bf_print", 9)
    assert task.verify(problem, problem.answer + "+[]") < 0.9
    task, problem = problem_of("befunge_print", 4)
    assert task.verify(problem, problem.answer[:-1]) < 0.9


def test_traces_of_programs():
    task = create_task({"name": "bf_copy"})
    meta = {"before": ",[", "pieces": [".", ",", "]"], "cases": [["abc", "abc"], ["d", "d"]]}
    problem = Problem("bf_copy", 0, 3, "bf_copy abc=abc: ,[", ".,]", meta)
    assert task.solution(problem) == ".=a ,=98 ]=bc"
    assert task.verify_steps(problem, ".=a ,=98 ]=bc") == [1, 1, 1]
    assert task.verify_steps(problem, ".=b ,=98 ]=bc") == [0, 1, 1]
    assert task.verify_steps(problem, ".,]=abc") == [1], "another division of a right program"
    assert task.verify_steps(problem, ">,]=98") == [0], "true, of no use"
    task = create_task({"name": "befunge_print"})
    meta = {"before": '"b', "pieces": ["a", '"', ",", ",", "@"], "cases": [["", "ab"]]}
    problem = Problem("befunge_print", 0, 4, 'befunge_print ab: "b', 'a",,@', meta)
    assert task.solution(problem) == 'a=97 "=97 ,=a ,=ab @=ab'
    assert task.verify_steps(problem, 'a"=97 ,,=ab @=ab') == [1, 1, 1]
    assert task.verify_steps(problem, 'a">:#,_@=ab') == [1]
    assert task.verify_steps(problem, 'a"=98 ,,=ab @') == [0, 0, 0]
    task, problem = problem_of("befunge_factorial", 9)
    start, n = problem.meta["before"], problem.meta["cases"][0][0]
    assert start == ""
    assert f"v={n} " in task.solution(problem)


OUTPUTS = [
    ("bf_copy_output", {"program": ",.,,..", "input": "abc"}, ",a .a ,b ,c .c .c"),
    ("bf_print_output", {"factors": [8, 12], "changes": [2, -1, 0]}, "8*12=96 +2=98:b -1=97:a +0=97:a"),
    ("bf_sort_output", {"program": VARIANTS[0], "input": "313"}, ",3 ,1 ,3 .1 .3 .3"),
    ("befunge_print_output", {"text": "cab", "body": "\\,$:,"}, '"cab"=cab \\=cba ,a=cb $=c :=cc ,c=c'),
    ("befunge_fibonacci_output", {"terms": [1, 2, 7], "extra": 4}, "1 2 1+2+4=7"),
    ("befunge_factorial_output", {"start": 1, "added": 3, "factor": 2, "n": 2}, "1*2=2 2*1=2 2+3=5 5*2=10"),
]


@pytest.mark.parametrize(("name", "meta", "trace"), OUTPUTS)
def test_traces_of_runs(name, meta, trace):
    task, _ = problem_of(name, 3)
    worked = Problem(name, 0, 3, "", "", meta)
    assert task.solution(worked) == trace
    assert task.verify_steps(worked, trace) == [1.0] * len(trace.split())
    assert task.verify_steps(worked, "9 " + trace)[0] == 0


@pytest.mark.parametrize("name", [name for name, _, _ in OUTPUTS])
def test_outputs_are_those_of_the_program_shown(name):
    for level in range(10):
        for seed in range(20):
            _, problem = problem_of(name, level, seed)
            words = problem.prompt.split(" ")
            given = words[2] if len(words) > 2 else ""
            if name.startswith("befunge"):
                limits = befunge.Limits(steps=2000)
                output, _, ended = plain_befunge_with_input(words[1], given.removeprefix("n="), limits)
                assert (output.rstrip(), ended) == (problem.answer, "end")
            else:
                read = numbers(map(int, given)) if "sort" in name else given
                output, _, ended = plain_brainfuck(words[1], read, brainfuck.LIMITS)
                shown = "".join(str(ord(c)) for c in output) if "sort" in name else output
                assert (shown, ended) == (problem.answer, "end")


def plain_befunge_with_input(program, given, limits):
    """The plain interpreter, with a number of one or two digits in place of `&`."""
    if "&" not in program:
        return plain_befunge(program, "", limits)
    return plain_befunge(program.replace("&", "~"), chr(int(given)), limits)


def test_credit_of_an_output():
    task, problem = problem_of("bf_copy_output", 4)
    wrong = "a" if problem.answer[0] != "a" else "b"
    assert task.verify(problem, wrong + problem.answer[1:]) == pytest.approx(0.9 * 0.8)
    assert task.verify(problem, problem.answer[:2]) == pytest.approx(0.9 * 0.4)
    assert task.verify(problem, "") == 0
