"""Thoughts measured by hand: what counts as one, marks and right steps, repetition, accuracy with and without."""

import json

import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.selfplay
import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.config import EvaluationConfig
from rlpt.evaluation.behaviours import Thought, behaviour_figures, measure, repetition, thought_text
from rlpt.evaluation.reasoning import evaluate_tasks, play_with
from rlpt.selfplay.base import Actor
from rlpt.tasks.base import create_task, evaluation_seed
from rlpt.template import ANSWER, END, PROMPT, THINK
from rlpt.types import Episode, Problem

PATH = create_task({"name": "graph_path", "search_trace": True})
PROBLEM = Problem("graph_path", 0, 2, "", "023", {"start": "0", "goal": "3", "edges": ["01", "02", "23"]})
WORKED = "01|2 ?1!3 <02 23 ?3=3"


def episode(text, score=1.0):
    return Episode(PROBLEM, [], {"solver": score}, text)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<|think|>01 13<|answer|>013<|end|>", "01 13"),
        ("<|think|><|answer|>013<|end|>", ""),
        ("<|think|>01 13", "01 13"),
        ("<|think|>01<|end|>", "01"),
        ("<|think|>01<|answer|>0<|answer|>013", "010"),
        ("<|answer|>013<|end|>", None),
        ("", None),
    ],
)
def test_a_thought_is_what_stands_before_the_answer(text, thought):
    assert thought_text(text) == thought


def test_repetition_is_the_share_of_ngrams_seen_before():
    assert repetition("abcdefgh") == 0
    assert repetition("aaaaaaa") == pytest.approx(3 / 4)
    assert repetition("abababab") == pytest.approx(3 / 5)
    assert repetition("abc") == repetition("") == 0
    assert repetition("aab", size=1) == pytest.approx(1 / 3)


def test_a_worked_thought():
    thought = measure(episode(f"<|think|>{WORKED}<|answer|>023<|end|>"), PATH)
    marked = {"backtracking": (1, 1), "verification": (2, 2), "alternative": (1, 1)}
    assert thought == Thought(True, len(WORKED), 0.0, 5, 5, marked)


def test_marks_count_by_steps_and_by_steps_that_are_right():
    # The first way back comes too soon, and the first check has the wrong verdict.
    thought = measure(episode("<|think|>01|2 <02||| ?1=3 ?1!3 <02<|answer|>02<|end|>", 0.5), PATH)
    marked = {"backtracking": (2, 1), "verification": (2, 1), "alternative": (2, 1)}
    assert (thought.is_correct, thought.num_steps, thought.num_right_steps) == (False, 5, 3)
    assert thought.marked == marked


def test_tasks_without_marks_have_lengths_and_right_steps():
    plain = create_task({"name": "graph_path"})
    thought = measure(episode("<|think|>02 2< 23<|answer|>023<|end|>"), plain)
    assert thought == Thought(True, 8, 0.0, 3, 2, {})
    assert behaviour_figures([thought])["marks"] == {}
    assert measure(episode("<|answer|>023<|end|>"), plain) is None


def test_figures_by_hand():
    thoughts = [
        Thought(True, 10, 0.0, 4, 4, {"backtracking": (2, 2)}),
        Thought(False, 20, 0.5, 4, 1, {"backtracking": (2, 1)}),
        Thought(False, 30, 0.1, 2, 0, {"backtracking": (0, 0)}),
        Thought(True, 0, 0.0, 0, 0, {"backtracking": (0, 0)}),
        Thought(False, 5, 0.0, 1, 1, {"backtracking": (0, 0)}),
    ]
    figures = behaviour_figures(thoughts)
    assert figures == {
        "thoughts": 5,
        "length": pytest.approx(13),
        "repetition": pytest.approx(0.12),
        "right_steps": pytest.approx((1 + 0.25 + 0 + 1) / 4),
        "all_right": pytest.approx(0.4),
        "marks": {
            "backtracking": {
                "share": pytest.approx(0.4),
                "per_thought": pytest.approx(0.8),
                "right": pytest.approx(0.75),
                "accuracy_with": pytest.approx(0.5),
                "accuracy_without": pytest.approx(1 / 3),
            }
        },
    }
    assert json.loads(json.dumps(figures)) == figures


def test_a_mean_over_nothing_is_none():
    figures = behaviour_figures([Thought(True, 0, 0.0, 0, 0, {"verification": (0, 0)})])
    assert figures["right_steps"] is None
    assert figures["all_right"] == 0
    mark = figures["marks"]["verification"]
    assert (mark["right"], mark["accuracy_with"], mark["accuracy_without"]) == (None, None, 1)


def evaluated(generator, **options):
    form = registry.create("selfplay", {"name": "solve", "group_size": 2} | options)
    play = play_with(form, Actor(generator, CharacterTokenizer()))
    return evaluate_tasks([(PATH, 2)], play, EvaluationConfig(problems=8, samples=2, pass_at=[1]))["graph_path"]


def test_the_oracle_s_thoughts_in_an_evaluation():
    worked = [PATH.sample(evaluation_seed(i), 2) for i in range(8)]

    def script(prompt, row):
        problem = worked[row // 2]
        assert prompt == f"{PROMPT}{problem.prompt}{THINK}"
        return f"{PATH.solution(problem)}{ANSWER}{problem.answer if row % 2 else '0'}{END}"

    figures = evaluated(ScriptedGenerator(CharacterTokenizer(), script), think=True, max_thought=60)
    traces = [PATH.solution(problem) for problem in worked]
    behaviours = figures["behaviours"]
    assert behaviours["thoughts"] == 16
    assert behaviours["length"] == pytest.approx(sum(map(len, traces)) / 8)
    assert (behaviours["right_steps"], behaviours["all_right"]) == (1, 1)
    assert behaviours["marks"]["verification"]["share"] == 1
    assert behaviours["marks"]["backtracking"]["per_thought"] == pytest.approx(sum(t.count("<") for t in traces) / 8)
    assert {one["accuracy_with"] for one in behaviours["marks"].values()} == {0.5}


def test_a_random_policy_shows_marks_that_are_wrong():
    behaviours = evaluated(RandomGenerator(), think=True, max_thought=60)["behaviours"]
    assert behaviours["length"] > 1
    assert behaviours["marks"]["backtracking"]["share"] > 0.1
    assert behaviours["marks"]["backtracking"]["right"] < 0.2
    assert behaviours["right_steps"] < 0.2


def test_without_thoughts_there_is_no_block():
    assert "behaviours" not in evaluated(RandomGenerator())
