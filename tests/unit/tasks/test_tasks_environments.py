"""Each environment against episodes worked by hand."""

import itertools
import re

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.tasks.arithmetic.countdown import parse_expression
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.environments import calculator, chain, composition, grid_world, mastermind
from rlpt.types import Problem


def problem_of(name, level, meta):
    """(task, problem) of a hand-made setup."""
    return create_task({"name": name}), Problem(name, 0, level, "", "", meta)


def live(environment, problem, turns):
    """All that is seen, from the first observation on."""
    seen = [environment.begin(problem)]
    for text in turns:
        seen.append(environment.act(seen[-1], text))
    return seen


def samples(name, level, count):
    task = create_task({"name": name})
    return task, [task.sample(train_seed(1, index), level) for index in range(count)]


# calculator: 3*(12+7)-5 = 52

EXPRESSION = {"expression": "3*(12+7)-5", "operations": [[12, "+", 7], [3, "*", 19], [57, "-", 5]], "value": 52}


def test_calculator_episode():
    task, problem = problem_of("calculator", 4, EXPRESSION)
    seen = live(task, problem, ["12+7", "3*19", "57-5", "52"])
    assert [observation.text for observation in seen] == ["3*(12+7)-5", "19", "57", "52", ""]
    assert [observation.score for observation in seen] == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 1])
    assert [observation.done for observation in seen] == [False] * 4 + [True]
    assert [text for text, _ in task.play(problem)] == ["12+7", "3*19", "57-5", "52"]


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        ("7*8", "56"),
        ("3-9", "-6"),
        ("0*0", "0"),
        ("007+1", "8"),
        ("1+", "?"),
        ("-5", "?"),
        ("1+2+3", "?"),
        ("2*-3", "?"),
    ],
)
def test_calculator_tool_computes_one_operation(turn, shown):
    task, problem = problem_of("calculator", 4, EXPRESSION)
    first = task.begin(problem)
    after = task.act(first, turn)
    assert (after.text, after.done, after.score, after.turns_left) == (shown, False, 0, first.turns_left - 1)


def test_calculator_credit():
    task, problem = problem_of("calculator", 4, EXPRESSION)
    assert task.verify(problem, "52") == 1, "the tool need not be asked"
    assert task.verify(problem, "3*19 52") == 1
    assert task.grade(problem, "42") == pytest.approx(0.15)
    assert task.grade(problem, "052") == pytest.approx(0.2), "not written as it should be"
    assert task.grade(problem, "7+12 42") == pytest.approx(1 / 6 + 0.15)
    assert task.grade(problem, "3*19 12+7") == pytest.approx(2 / 6), "the furthest operation counts"
    assert task.grade(problem, "5-57") == 0, "a difference has an order"
    assert task.grade(problem, " ".join(["1+1"] * 8)) == 0, "out of turns"
    assert task.grade(problem, " ".join(["1+1"] * 8 + ["52"])) == 0


def test_calculator_right_steps():
    task, problem = problem_of("calculator", 4, EXPRESSION)
    assert task.verify_steps(problem, "7+12 7+12 12-7 19*3 57-5 51") == [1, 0, 0, 1, 1, 0]
    assert task.verify_steps(problem, "1+1 52 52") == [0, 1, 0]
    wasted = " ".join(["1+1"] * 7)
    assert task.verify_steps(problem, wasted + " 12+7")[-1] == 0, "the last turn is for the answer"
    assert task.verify_steps(problem, wasted + " 52")[-1] == 1


def test_calculator_operations_are_those_of_the_expression():
    for level in range(10):
        for problem in samples("calculator", level, 60)[1]:
            meta = problem.meta
            value, numbers = parse_expression(meta["expression"])
            assert value == meta["value"] == eval(meta["expression"])
            assert len(numbers) == len(meta["operations"]) + 1 == calculator.OPERATIONS[level] + 1
            text = meta["expression"]
            for left, operator, right in meta["operations"]:
                result = str(eval(f"{left}{operator}{right}"))
                wanted = re.escape(f"{left}{operator}{right}")
                text, found = re.subn(rf"\({wanted}\)|(?<![0-9]){wanted}(?![0-9])", result, text, count=1)
                assert found, "it stands there, to be replaced by its result"
                assert eval(text) == meta["value"]
                assert 0 <= int(result) <= calculator.LARGEST_VALUES[level]
            assert text == str(meta["value"])


# chain


def test_chain_episode():
    task, problem = problem_of("chain", 3, {"rule": "3142", "cues": "cabb"})
    seen = live(task, problem, ["4", "3", "1", "1"])
    assert [observation.text for observation in seen] == ["a3 b1 c4 d2: c", "a", "b", "b", ""]
    assert [observation.score for observation in seen] == [0, 0, 0, 0, 1]
    assert task.begin(problem).legal == "1234"
    assert task.verify(problem, "4 3 1 1") == 1


@pytest.mark.parametrize("answer", ["3", "4 3 1 2", "4 3 1", "4 3  1", "4 44 1 1", "4 3 1 1 1"])
def test_chain_pays_nothing_before_its_end(answer):
    task, problem = problem_of("chain", 3, {"rule": "3142", "cues": "cabb"})
    assert task.verify(problem, answer) == 0


def test_chain_slip_ends_it():
    task, problem = problem_of("chain", 3, {"rule": "3142", "cues": "cabb"})
    assert live(task, problem, ["4", "4"])[-1].done
    assert task.verify_steps(problem, "4 4 1 1") == [1, 0, 0, 0]
    assert not live(task, problem, ["4", ""])[-1].done, "an ill-formed turn is only used up"


def test_chain_lengths():
    for level in range(10):
        for problem in samples("chain", level, 5)[1]:
            assert len(problem.answer.split()) == chain.STEPS[level]
            assert sorted(problem.meta["rule"]) == list("12345678"[: chain.CUES[level]])


# composition


def test_composition_episode():
    task, problem = problem_of("composition", 3, {"text": "3142", "skills": ["copy", "reverse"]})
    seen = live(task, problem, ["3142", "2413"])
    assert [observation.text for observation in seen] == ["copy then reverse 3142", "reverse", ""]
    assert [observation.score for observation in seen] == [0, 0.5, 1]
    assert [text for text, _ in task.play(problem)] == ["3142", "2413"]


def test_composition_grades_each_turn():
    task, problem = problem_of("composition", 3, {"text": "3142", "skills": ["copy", "reverse"]})
    assert task.grade(problem, "3142 3142") == pytest.approx(0.5)
    assert task.grade(problem, "2413 2413") == pytest.approx(0.5), "a wrong turn does not spoil the next"
    assert task.grade(problem, "3241 2134") == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert task.grade(problem, "3142") == pytest.approx(0.5)
    assert task.grade(problem, " 3142") == pytest.approx(0.5), "a turn was used up"
    wrong, right = (live(task, problem, [text])[-1] for text in ("0000", "3142"))
    assert wrong.text == right.text, "nothing is said of what was right"


def test_composition_skills():
    meta = {"text": "3142", "skills": ["rotate", "sort", "reverse", "rotate", "copy"]}
    task, problem = problem_of("composition", 9, meta)
    assert [text for text, _ in task.play(problem)] == ["1423", "1234", "4321", "3214", "3214"]
    assert set(composition.SKILLS) == set(task.skills)


def test_composition_options():
    fixed = create_task({"name": "composition", "chain": ["copy", "reverse"]})
    for level in range(10):
        problem = fixed.sample(5, level)
        text = problem.prompt.split()[-1]
        assert problem.prompt == f"composition copy then reverse {text}"
        assert problem.answer == f"{text} {text[::-1]}"
        assert len(problem.answer) <= fixed.answer_limit(level)
    alone = create_task({"name": "composition", "skills": ["sort"]})
    assert alone.sample(5, 9).meta["skills"] == ["sort"] * 4
    longest = create_task({"name": "composition", "chain": ["reverse"] * composition.LONGEST_CHAIN})
    assert len(longest.begin(longest.sample(5, 9)).text) <= 160


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skills": ["sorted"]}, "skills: unknown skill 'sorted'; did you mean 'sort'"),
        ({"chain": ["copy", "rot"]}, "chain: unknown skill 'rot'; did you mean 'rotate'"),
        ({"skills": []}, "skills: name at least one"),
        ({"chain": ["copy"] * 9}, "chain: 9 skills, over 8"),
    ],
)
def test_composition_refuses(options, message):
    with pytest.raises(ConfigError, match=message):
        create_task({"name": "composition", **options})


# mastermind


@pytest.mark.parametrize(
    ("guess", "secret", "seen"),
    [
        ("aabb", "aabb", "40"),
        ("aabb", "bbaa", "04"),
        ("aabb", "abcd", "11"),
        ("abcd", "aaaa", "10"),
        ("aaab", "cada", "11"),
        ("cdef", "aabb", "00"),
        ("abc", "bca", "03"),
    ],
)
def test_mastermind_feedback(guess, secret, seen):
    assert mastermind.feedback(guess, secret) == mastermind.feedback(secret, guess) == seen


def test_mastermind_feedback_of_all_codes():
    """Against blacks struck out first, and whites found one by one in what is left."""
    for guess, secret in itertools.product(itertools.product("abc", repeat=3), repeat=2):
        left = [(g, s) for g, s in zip(guess, secret) if g != s]
        rest, whites = [s for _, s in left], 0
        for symbol, _ in left:
            if symbol in rest:
                rest.remove(symbol)
                whites += 1
        assert mastermind.feedback("".join(guess), "".join(secret)) == f"{3 - len(left)}{whites}"


def test_mastermind_episode():
    task, problem = problem_of("mastermind", 4, {"secret": "cab", "tag": "k7"})
    seen = live(task, problem, ["aab", "ab", "cbb", "cab"])
    assert [observation.text for observation in seen] == ["abcd 3 k7", "20", "?", "20", ""]
    assert [observation.score for observation in seen] == pytest.approx([0, 0.8 * 2 / 3, 0.8 * 2 / 3, 0.8 * 2 / 3, 1])
    assert task.grade(problem, "abc") == pytest.approx(0.4), "three whites"
    assert task.grade(problem, " ".join(["ddd"] * 7)) == 0
    assert task.grade(problem, " ".join(["ddd"] * 7 + ["cab"])) == 0


def test_mastermind_right_steps_are_consistent_codes():
    task, problem = problem_of("mastermind", 4, {"secret": "cab", "tag": "k7"})
    # After aab -> 20, a code agrees with aab in just two places and shares no third symbol.
    assert task.verify_steps(problem, "aab cab") == [1, 1]
    assert task.verify_steps(problem, "aab dab cab") == [1, 1, 1]
    assert task.verify_steps(problem, "ddd ddd abd abcc") == [1, 0, 0, 0]


@pytest.mark.parametrize("level", range(10))
def test_mastermind_oracle_finds_every_secret_in_time(level):
    task = create_task({"name": "mastermind"})
    symbols, length = mastermind.ALL_SYMBOLS[: mastermind.SYMBOLS[level]], mastermind.LENGTHS[level]
    most = 0
    for secret in map("".join, itertools.product(symbols, repeat=length)):
        taken = task.play(Problem("mastermind", 0, level, "", "", {"secret": secret, "tag": "aa"}))
        assert taken[-1][0] == secret
        assert taken[-1][1].score == 1
        most = max(most, len(taken))
    assert mastermind.TURNS[level] - (2 if level else 0) <= most <= mastermind.TURNS[level]


# grid_world: cells 0 1 2 over 3 4 5; the way is 0-3-4-1-2-5, the player starts at 0, the goal is 5.

MAZE = {"width": 3, "ways": ["D", "DR", "LD", "UR", "LU", "U"], "start": 0, "goal": 5, "tag": "k7"}


def test_grid_world_episode():
    task, problem = problem_of("grid_world", 2, MAZE)
    turns = ["R", "D", "R", "L", "R", "UU", "U", "R", "D"]
    seen = live(task, problem, turns)
    texts = ["3x2 k7 #.##", "#.##", ".##.", ".#.#", ".##.", ".#.#", "?", "#.#.", "#G.#", ".###"]
    assert [observation.text for observation in seen] == texts
    assert [observation.score for observation in seen] == pytest.approx([0, 0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.6, 0.8, 1])
    assert [observation.done for observation in seen] == [False] * 9 + [True]
    assert [text for text, _ in task.play(problem)] == list("DRURD")
    assert task.verify_steps(problem, "D R L R D") == [1, 1, 0, 1, 0]
    assert seen[0].turns_left == 12


def test_grid_world_out_of_turns():
    task, problem = problem_of("grid_world", 2, MAZE)
    seen = live(task, problem, ["D", "R"] + ["L"] * 10)
    assert (seen[-1].done, seen[-1].score) == (True, 0.4), "how near it came counts"


def test_grid_world_shows_only_what_is_near():
    task, problem = problem_of("grid_world", 2, MAZE)
    _, other = problem_of("grid_world", 2, {**MAZE, "ways": ["D", "R", "LD", "UR", "LR", "UL"]})
    assert task.begin(problem).text == task.begin(other).text


def test_grid_world_goal_is_farthest_and_every_cell_is_joined_once():
    for level, (width, height) in enumerate(grid_world.SIZES):
        for problem in samples("grid_world", level, 20)[1]:
            meta = problem.meta
            assert {meta["width"], len(meta["ways"]) // meta["width"]} == {width, height}
            assert sum(map(len, meta["ways"])) == 2 * (width * height - 1), "a tree"
            away = grid_world.distances(meta["ways"], meta["width"], meta["start"])
            assert len(problem.answer.split()) == away[meta["goal"]] == max(away)


def explore(task, observation):
    """What is seen last by a player that walks every way of the maze depth first, from its views alone."""
    view, trail = observation.text.split()[-1], ""
    at, seen = (0, 0), {(0, 0)}
    offsets = {"U": (0, -1), "D": (0, 1), "L": (-1, 0), "R": (1, 0)}
    back = {"U": "D", "D": "U", "L": "R", "R": "L"}
    while not observation.done:
        beside = {d: (at[0] + offsets[d][0], at[1] + offsets[d][1]) for d in "UDLR"}
        ahead = [d for d, symbol in zip("UDLR", view) if symbol != "#" and beside[d] not in seen]
        text = ahead[0] if ahead else back[trail[-1]]
        trail = trail + text if ahead else trail[:-1]
        at = beside[text]
        seen.add(at)
        observation = task.act(observation, text)
        view = observation.text
    return observation


def test_grid_world_turns_are_enough_to_explore():
    for level in range(10):
        task, problems = samples("grid_world", level, 20)
        assert all(explore(task, task.begin(problem)).score == 1 for problem in problems)


def test_episode_tags_are_of_no_use():
    """Every secret comes with the same tags."""
    metas = [problem.meta for problem in samples("mastermind", 0, 4000)[1]]
    assert len({meta["tag"] for meta in metas}) > 1000
    secrets = [meta["secret"] for meta in metas if meta["tag"][0] == "k"]
    assert len(secrets) > 60
    assert all(secrets.count(secret) > len(secrets) / 5 for secret in "abc")
