"""What every registered environment owes beyond what every task does: purity, bounded turns, a hidden state."""

import copy
import json
import random
from dataclasses import replace

import pytest
from helpers.tasks import JUNK, problems, task_names

from rlpt.registry import lookup
from rlpt.tasks.base import create_task, random_text
from rlpt.tasks.environments.base import INVALID
from rlpt.template import END, RESULT, TURN

NAMES = [name for name in task_names() if lookup("task", name).kind == "environment"]
LONGEST_FIRST, LONGEST = 160, 60  # characters of the first and of any later observation
MOST_TURNS = 100


@pytest.fixture(params=NAMES)
def environment(request):
    return create_task({"name": request.param})


def levels(environment):
    return range(environment.max_level + 1)


def random_turns(environment, observation, rng):
    """(turn, what is seen after it) of a random player."""
    taken = []
    while not observation.done:
        text = random_text(observation.legal, observation.limit, rng)
        observation = environment.act(observation, text)
        taken.append((text, observation))
    return taken


def test_environments_are_registered():
    assert {"calculator", "chain", "composition", "grid_world", "mastermind", "memory"} <= set(NAMES)


def test_acting_is_pure(environment):
    rng = random.Random(0)
    for level in levels(environment):
        for problem in problems(environment, level, 3):
            observation = environment.begin(problem)
            assert environment.begin(problem) == observation
            while not observation.done:
                assert hash(observation.state) == hash(copy.deepcopy(observation).state), "a state is immutable"
                kept, oracle = copy.deepcopy(observation), environment.oracle(observation)
                text = rng.choice([oracle, random_text(observation.legal, observation.limit, rng)])
                after = environment.act(observation, text)
                environment.act(observation, oracle)
                assert environment.act(observation, text) == after
                assert environment.oracle(observation) == oracle
                assert observation == kept
                observation = after


def test_problem_survives_json(environment):
    for level in levels(environment):
        for problem in problems(environment, level, 3):
            again = replace(problem, meta=json.loads(json.dumps(dict(problem.meta))))
            assert environment.begin(again) == environment.begin(problem)


def test_oracle_reaches_the_goal_in_time(environment):
    for level in levels(environment):
        for problem in problems(environment, level, 30):
            first, taken = environment.begin(problem), environment.play(problem)
            assert not first.done
            assert first.score < 1
            assert 1 <= len(taken) <= first.turns_left <= MOST_TURNS
            assert [after.done for _, after in taken] == [False] * (len(taken) - 1) + [True]
            assert taken[-1][1].score == 1
            for text, before in zip([text for text, _ in taken], [first, *(after for _, after in taken)]):
                assert environment.is_well_formed(before, text)
                assert environment.is_right(before, text)


def test_oracle_goes_on_from_wherever_a_random_player_is(environment):
    """It names a well-formed turn in every state that can be reached, and its own turns never lower the score."""
    rng = random.Random(1)
    for level in levels(environment):
        for problem in problems(environment, level, 4):
            observation = environment.begin(problem)
            while not observation.done:
                oracle = environment.oracle(observation)
                assert environment.is_well_formed(observation, oracle)
                assert environment.act(observation, oracle).score >= observation.score
                observation = environment.act(observation, random_text(observation.legal, observation.limit, rng))


def test_ill_formed_turns_are_used_up(environment):
    for level in (0, 4, environment.max_level):
        for problem in problems(environment, level, 2):
            first = environment.begin(problem)
            for junk in [*JUNK, first.legal[0] * (first.limit + 1), "~"]:
                observation = first
                for left in range(first.turns_left - 1, -1, -1):
                    is_well_formed = environment.is_well_formed(observation, junk)
                    environment.is_right(observation, junk)
                    after = environment.act(observation, junk)
                    assert after.turns_left == left
                    if not is_well_formed:
                        assert after == replace(observation, text=INVALID, turns_left=left, done=left == 0)
                    observation = after
                    if observation.done:
                        break
                assert observation.done, ascii(junk[:20])
                assert observation.score < 1 or is_well_formed


def test_random_player_ends_and_sees_short_printable_text(environment):
    rng = random.Random(2)
    for level in levels(environment):
        for problem in problems(environment, level, 8):
            first = environment.begin(problem)
            taken = random_turns(environment, first, rng)
            assert 1 <= len(taken) <= first.turns_left
            assert len(" ".join(text for text, _ in taken)) <= environment.answer_limit(level)
            assert 1 <= len(first.text) <= LONGEST_FIRST
            for observation in [first, *(after for _, after in taken)]:
                assert observation.text.isascii()
                assert observation.text.isprintable() or observation.text == ""
                assert observation.done or observation.text
                assert len(observation.text) <= (LONGEST_FIRST if observation is first else LONGEST)
                assert observation.legal
                assert len(set(observation.legal)) == len(observation.legal)
                assert set(observation.legal) <= set(environment.alphabet) - {" "}
                assert 0 <= observation.score <= 1


def test_legal_turns_are_those_of_the_level(environment):
    """What a turn may hold does not depend on the problem, so that it gives nothing of its answer away."""
    for level in levels(environment):
        firsts = [environment.begin(problem) for problem in problems(environment, level, 20)]
        assert len({first.legal for first in firsts}) == 1
        assert len({first.limit for first in firsts}) == 1


def test_secret_is_not_shown(environment):
    """Two problems that differ in nothing but their secrets look the same at first."""
    for level in levels(environment):
        one, *others = problems(environment, level, 10)
        for other in others if "secret" in one.meta else ():
            swapped = replace(one, meta={**one.meta, "secret": other.meta["secret"]})
            assert environment.begin(swapped).text == environment.begin(one).text
            assert environment.begin(swapped).state != environment.begin(one).state or swapped == one


def test_document_parses_into_the_oracle_s_turns(environment):
    for level in levels(environment):
        for problem in problems(environment, level, 3):
            opening, *parts = environment.document(problem).split(TURN)
            turns, seen = zip(*(part.split(END) for part in parts))
            taken = environment.play(problem)
            assert opening.endswith(RESULT + environment.begin(problem).text)
            assert list(turns) == [text for text, _ in taken] == problem.answer.split(" ")
            assert [text.removeprefix(RESULT) for text in seen[:-1]] == [after.text for _, after in taken[:-1]]
            assert seen[-1] == ""
            assert environment.verify(problem, " ".join(turns)) == 1


def test_replay_scores_what_was_reached(environment):
    rng = random.Random(3)
    for level in levels(environment):
        for problem in problems(environment, level, 8):
            taken = random_turns(environment, environment.begin(problem), rng)
            score = environment.grade(problem, " ".join(text for text, _ in taken))
            assert score == taken[-1][1].score
            too_many = f"{problem.answer} {problem.answer.split(' ')[0]}"
            assert environment.grade(problem, too_many) == 0, "the episode was over"
