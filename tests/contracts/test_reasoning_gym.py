"""What every registered data set of reasoning-gym owes, and why the rest are left out."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.tasks import JUNK, problems, task_names

from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, evaluation_seed, is_held_out, train_seed
from rlpt.tasks.reasoning_gym.catalogue import DATA_SETS, UNUSABLE
from rlpt.template import END, parse_answer

pytest.importorskip("reasoning_gym")
NAMES = task_names("reasoning_gym")
TESTS = Path(__file__).parents[1]


@pytest.fixture(params=NAMES, scope="module")  # all tests of a data set in a row: the worker builds it once
def task(request):
    return create_task({"name": request.param})


def digest(names: list[str]) -> str:
    """A hash over two problems of each task, made in the order of `names`."""
    made = {}
    for name in names:
        task = create_task({"name": name})
        made[name] = [task.sample(train_seed(9, index), index) for index in range(min(2, task.max_level + 1))]
    return hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()


def test_catalogue_is_the_packages_registry():
    from reasoning_gym.factory import DATASETS

    assert set(DATA_SETS) | set(UNUSABLE) == set(DATASETS)
    assert not set(DATA_SETS) & set(UNUSABLE)
    assert [f"reasoning_gym.{name}" for name in sorted(DATA_SETS)] == NAMES


def test_same_problems_in_another_process_and_order():
    run = subprocess.run(
        [sys.executable, "-m", "contracts.test_reasoning_gym"],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest(NAMES)


def test_levels_build_and_the_oracle_is_right(task):
    for level in range(len(task.traits.limits)):
        problem = task.sample(train_seed(3, level), level)
        assert task.verify(problem, problem.answer) == 1
        assert 1 <= len(problem.answer) <= task.answer_limit(level)
        assert set(problem.answer) <= set(task.alphabet)
        assert problem.prompt
        assert END not in problem.prompt
        assert parse_answer(task.document(problem, task.solution(problem))) == problem.answer
        steps = task.verify_steps(problem, task.solution(problem))
        assert steps == [1.0] * len(problem.answer.split())
    limits = [task.answer_limit(level) for level in range(task.max_level + 1)]
    assert limits == sorted(limits)
    assert task.traits.limits == tuple(sorted(task.traits.limits))
    with pytest.raises(ConfigError, match="is outside"):
        task.sample(1, task.max_level + 1)


def test_junk_scores_nothing(task):
    problem = task.sample(train_seed(3, 0), 0)
    for junk in JUNK:
        assert task.verify(problem, junk) == 0, ascii(junk[:20])


def test_answers_of_other_problems_score_lower(task):
    level = min(1, task.max_level)
    some = problems(task, level, 4)
    scores = [task.verify(problem, other.answer) for problem, other in pairwise(some)]
    same = [problem.answer == other.answer for problem, other in pairwise(some)]
    assert set(scores) <= {0.0, 1.0}
    assert sum(scores) <= sum(same) + (0 if task.unique_answer else 1)


def test_held_out_prompts_are_told_apart():
    for name in ("gcd", "word_sorting", "countdown", "gsm_symbolic"):
        task = create_task({"name": f"reasoning_gym.{name}"})
        assert is_held_out(task.sample(evaluation_seed(0), task.max_level).prompt)
        assert not is_held_out(task.sample(train_seed(5, 0), task.max_level).prompt)


def test_reasons_for_leaving_data_sets_out():
    from reasoning_gym.code import codeio
    from reasoning_gym.factory import create_dataset

    for name in ("boxnet", "rush_hour"):
        assert create_dataset(name, seed=1, size=1)[0]["answer"] is None
    with pytest.raises(AssertionError, match="at least one dataset"):
        create_dataset("composite", seed=1, size=1)
    puzzles = create_dataset("puzzle24", seed=1, size=20)
    assert all(puzzles.score_answer("6*4*1*1", entry) == 1 for entry in puzzles)
    arguments = create_dataset("propositional_logic", seed=1, size=20)
    copied = [max(arguments.score_answer(text, entry) for text in entry["metadata"]["premises"]) for entry in arguments]
    assert copied.count(1.0) >= 15
    executed = []
    codeio.exec = lambda program, *_: executed.append(program)  # shadows the builtin in that module
    try:
        create_dataset("codeio", seed=1, size=1)[0]
    finally:
        del codeio.exec
    assert "def main_solution" in executed[0]


if __name__ == "__main__":
    print(digest(NAMES[::-1]))
