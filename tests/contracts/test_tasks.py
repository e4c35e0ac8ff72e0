"""What every registered task owes, whatever it is about."""

import os
import random
import re
import subprocess
import sys

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.tasks.base import WRONG_CREDIT, create_task, evaluation_seed, train_seed

NAMES = registry.names("task")
JUNK = [
    "",
    " ",
    "<|answer|>",
    "<|end|>",
    "١٢٣",
    "²",
    "1" * 100_000,
    "(" * 100_000,
    "__import__('os')",
    "9**9**9",
    "\0",
    "1\0",
    "nan",
    "inf",
    "-",
    "1e3",
    "0x1",
    "\ud800",
    "\n1",
]
DUMP = """
import hashlib, rlpt.tasks
from rlpt import registry
from rlpt.tasks.base import create_task, train_seed
digest = hashlib.sha256()
for name in registry.names("task"):
    task = create_task({"name": name})
    for level in range(task.max_level + 1):
        for index in range(3):
            problem = task.sample(train_seed(7, index), level)
            digest.update(repr((problem, task.solution(problem))).encode())
print(digest.hexdigest())
"""


@pytest.fixture(params=NAMES)
def task(request):
    return create_task({"name": request.param})


def problems(task, level, count):
    return [task.sample(train_seed(3, index), level) for index in range(count)]


def random_answer(task, level, rng):
    """What a policy with uniform logits over the legal set says; too long an answer is no answer."""
    answer = ""
    while len(answer) <= task.answer_limit(level):
        character = rng.choice([*task.legal_characters(level), None])
        if character is None:
            return answer
        answer += character
    return ""


def random_success(task, level, count):
    rng = random.Random(level)
    return sum(task.verify(p, random_answer(task, level, rng)) == 1 for p in problems(task, level, count)) / count


def test_families_are_registered():
    assert {"reverse", "sort", "addition", "countdown", "graph_path"} <= set(NAMES)


def test_same_bytes_in_another_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DUMP],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_problem_is_rebuilt_from_its_key(task):
    problem = task.sample(train_seed(3, 5), 2)
    assert task.sample(problem.seed, problem.level) == problem
    assert problem.task == task.name
    assert len({p.prompt for p in problems(task, 5, 50)}) > 40, "neighbouring seeds give different problems"


def test_oracle_is_right_and_within_bounds(task):
    for level in range(task.max_level + 1):
        assert set(task.legal_characters(level)) <= set(task.alphabet)
        for problem in problems(task, level, 30):
            assert task.verify(problem, problem.answer) == 1
            assert 1 <= len(problem.answer) <= task.answer_limit(level)
            assert set(problem.answer) <= set(task.legal_characters(level))
            assert problem.prompt.isascii()
            assert len(problem.prompt) < 120


def test_worked_solution_passes_its_own_check(task):
    for level in range(task.max_level + 1):
        for problem in problems(task, level, 20):
            trace = task.solution(problem)
            assert trace
            assert set(trace) <= set(task.thought_alphabet)
            assert task.verify_steps(problem, trace) == [1.0] * len(trace.split())
            assert 0 in task.verify_steps(problem, trace + " 77+77=77")
            assert sum(task.verify_steps(problem, " ".join(JUNK))) < len(" ".join(JUNK).split())


def test_wrong_answers_score_lower(task):
    rng = random.Random(0)
    mutated = []
    for level in range(task.max_level + 1):
        for problem in problems(task, level, 30):
            answer = problem.answer
            at = rng.randrange(len(answer))
            changed = rng.choice([c for c in task.legal_characters(level) if c != answer[at]])
            texts = (answer[:at] + changed + answer[at + 1 :], answer[:-1], answer + answer[-1])
            mutated += [task.verify(problem, text) for text in texts]
        scores = [task.verify(p, random_answer(task, level, rng)) for p in problems(task, level, 100)]
        assert sum(scores) / len(scores) < 0.5
        assert all(0 <= score <= WRONG_CREDIT or score == 1 for score in scores)
    assert all(0 <= score <= WRONG_CREDIT or score == 1 for score in mutated)
    # Countdown and paths have other right answers, which a mutation meets now and then; the rest have none.
    assert mutated.count(1) <= (0.05 * len(mutated) if task.name in ("countdown", "graph_path") else 0)


def test_partial_credit_reaches_a_random_policy(task):
    rng = random.Random(1)
    scores = [task.verify(p, random_answer(task, 3, rng)) for p in problems(task, 3, 400)]
    assert sum(0 < score < 1 for score in scores) >= 10


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: ascii(junk[:12]))
def test_junk_is_worth_nothing(task, junk):
    for level in (0, 4, task.max_level):
        for problem in problems(task, level, 3):
            assert task.verify(problem, junk) == 0
            task.verify_steps(problem, junk)


def test_levels_get_harder(task):
    sizes = [sum(len(task.solution(p)) + len(p.prompt) for p in problems(task, n, 100)) for n in range(10)]
    assert sizes == sorted(set(sizes)), "larger instances"
    limits = [task.answer_limit(level) for level in range(task.max_level + 1)]
    assert limits == sorted(limits)


def test_level_0_can_be_guessed_and_later_ones_not(task):
    assert 0.05 <= random_success(task, 0, 4000) <= 0.30
    assert random_success(task, 1, 1000) < 0.05
    assert random_success(task, 2, 1000) < 0.05


def test_level_outside_is_refused(task):
    for level in (-1, task.max_level + 1):
        with pytest.raises(ConfigError, match=re.escape(f"task {task.name}: level {level} is outside")):
            task.sample(1, level)


def test_training_and_evaluation_seeds_are_disjoint():
    training = {train_seed(stream, index) for stream in range(4) for index in range(500)}
    held_out = {evaluation_seed(index) for index in range(2000)}
    assert len(training) == 2000
    assert len(held_out) == 2000
    assert max(training) < 1 << 62 <= min(held_out)
    assert max(held_out) < 1 << 63


def test_unknown_task_and_option_name_the_key():
    with pytest.raises(ConfigError, match=r"play\.tasks\.0\.name: unknown task 'revers'; did you mean 'reverse'"):
        create_task({"name": "revers"}, "play.tasks.0")
    with pytest.raises(ConfigError, match=r"reversed_anser: unknown key; did you mean 'reversed_answer'"):
        create_task({"name": "addition", "reversed_anser": True})
