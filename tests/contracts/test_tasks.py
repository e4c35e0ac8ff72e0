"""What every registered native task, game and environment owes, whatever it is about."""

import random
import re
from pathlib import Path

import pytest
from helpers.hostile_answers import ENDLESS, harmful
from helpers.tasks import JUNK, digests_elsewhere, problems, task_names

from rlpt.errors import ConfigError
from rlpt.registry import lookup
from rlpt.tasks.base import WRONG_CREDIT, create_task, evaluation_seed, is_held_out, train_seed
from rlpt.tasks.profile import random_success, reference_success
from rlpt.template import ANSWER, END, TURN, encode_marked, parse_answer

from helpers.tokenizer import CharacterTokenizer  # isort: skip

NAMES = task_names("native")
ONE_TURN = [name for name in NAMES if lookup("task", name).kind != "environment"]
FAMILIES = [name for name in NAMES if lookup("task", name).kind == "task"]
TESTS = Path(__file__).parents[1]


SEARCHED = [f"{name}-search_trace" for name in NAMES if "search_trace" in lookup("task", name).__dataclass_fields__]


@pytest.fixture(params=[*NAMES, *SEARCHED])
def task(request):
    name, _, option = request.param.partition("-")
    return create_task({"name": name} | ({option: True} if option else {}))


def levels(task):
    return range(task.max_level + 1)


def test_families_are_registered():
    assert {"reverse", "sort", "addition", "countdown", "graph_path"} <= set(NAMES)


def test_same_bytes_in_another_process():
    assert len(digests_elsewhere(NAMES)) == 1


def test_problem_is_rebuilt_from_its_key(task):
    problem = task.sample(train_seed(3, 5), 2)
    assert task.sample(problem.seed, problem.level) == problem
    assert problem.task == task.name
    assert len({p.prompt for p in problems(task, task.max_level, 50)}) > 40, "neighbouring seeds differ"


def test_oracle_is_right_and_within_bounds(task):
    for level in levels(task):
        assert set(task.legal_characters(level)) <= set(task.alphabet)
        for problem in problems(task, level, 20):
            assert task.verify(problem, problem.answer) == 1
            assert 1 <= len(problem.answer) <= task.answer_limit(level)
            assert set(problem.answer) <= set(task.alphabet)
            assert problem.prompt.isascii()
            assert problem.prompt.isprintable()
            assert len(problem.prompt) <= 200
            if task.kind != "environment":
                assert set(problem.answer) <= set(task.legal_characters(level))


def test_worked_solution_passes_its_own_check(task):
    for level in levels(task):
        for problem in problems(task, level, 10):
            trace = task.solution(problem)
            assert trace
            assert set(trace) <= set(task.thought_alphabet)
            assert len(trace.split()) < task.most_steps
            assert task.verify_steps(problem, trace) == [1.0] * len(trace.split())
            assert 0 in task.verify_steps(problem, trace + " 77+77=77")
            assert sum(task.verify_steps(problem, " ".join(JUNK))) < len(" ".join(JUNK).split())


def test_document_holds_the_answer_as_the_template_parses_it(task):
    tokenizer = CharacterTokenizer()
    for level in (0, task.max_level):
        for problem in problems(task, level, 3):
            text = task.document(problem, task.solution(problem))
            assert tokenizer.decode(encode_marked(tokenizer, text)) == text
            assert text.endswith(END)
            if task.kind == "environment":
                turns = [part.partition(END)[0] for part in text.split(TURN)[1:]]
                assert " ".join(turns) == problem.answer
            else:
                assert parse_answer(text) == problem.answer
                assert text.count(ANSWER) == 1


def test_wrong_answers_score_lower(task):
    rng = random.Random(0)
    mutated = []
    for level in levels(task):
        for problem in problems(task, level, 20):
            answer = problem.answer
            at = rng.randrange(len(answer))
            changed = rng.choice([c for c in task.alphabet if c != answer[at]])
            texts = (answer[:at] + changed + answer[at + 1 :], answer[:-1], answer + answer[-1])
            mutated += [task.verify(problem, text) for text in texts]
        scores = [task.verify(p, task.random_answer(p, rng)) for p in problems(task, level, 60)]
        assert sum(scores) / len(scores) < 0.55
        assert all(0 <= score <= WRONG_CREDIT or score == 1 for score in scores)
    assert all(0 <= score <= WRONG_CREDIT or score == 1 for score in mutated)
    # Where several answers are right, a mutation meets another one now and then; elsewhere it never does.
    assert mutated.count(1) <= (0 if task.unique_answer else 0.25 * len(mutated))


@pytest.mark.parametrize("name", FAMILIES)
def test_partial_credit_reaches_a_random_policy(name):
    task, rng = create_task({"name": name}), random.Random(1)
    scores = [task.verify(p, task.random_answer(p, rng)) for p in problems(task, 3, 400)]
    assert sum(0 < score < 1 for score in scores) >= 10


def test_junk_is_worth_nothing(task):
    for level in (0, 4, task.max_level):
        for problem in problems(task, level, 2):
            for junk in JUNK:
                well_formed = len(junk) <= task.answer_limit(level) and set(junk) <= set(task.alphabet)
                assert task.verify(problem, junk) <= (WRONG_CREDIT if junk and well_formed else 0), ascii(junk[:20])
                task.verify_steps(problem, junk)


def test_hostile_answers_score_nothing_and_do_nothing(task, tmp_path):
    answers = [*harmful(str(tmp_path / "canary")), *ENDLESS]
    for level in (0, task.max_level):
        problem = task.sample(train_seed(3, 0), level)
        for answer in answers:  # `9**9` is a Befunge program like another, and a bounded one
            most = WRONG_CREDIT if set(answer) <= set(task.alphabet) else 0
            assert task.verify(problem, answer) <= most
    assert list(tmp_path.iterdir()) == []


def test_levels_get_harder_for_the_reference_solver(task):
    rates = [reference_success(task, level, 60) for level in levels(task)]
    assert rates == sorted(set(rates), reverse=True)
    limits = [task.answer_limit(level) for level in levels(task)]
    assert limits == sorted(limits)


def test_level_0_can_be_guessed_and_high_ones_not(task):
    assert 0.05 <= random_success(task, 0, 3000) <= 0.30
    assert random_success(task, task.max_level, 500) < 0.05
    if task.kind == "task":
        assert random_success(task, 1, 1000) < 0.05
        assert random_success(task, 2, 1000) < 0.05


def test_held_out_prompts_are_never_trained_on(task):
    for index in range(40):
        assert not is_held_out(task.sample(train_seed(5, index), task.max_level).prompt)
        assert is_held_out(task.sample(evaluation_seed(index), task.max_level).prompt)


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
