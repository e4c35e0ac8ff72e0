"""Problems of a mix: by their number alone, at levels that move with success, with a start that chance can reach."""

import json

import pytest
from helpers.rollouts import source_context

import rlpt.selfplay
import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.rollout.task_mix import TaskMix, TaskShare, planned_episodes
from rlpt.selfplay.curriculum import CurriculumOptions, Weighting
from rlpt.tasks.base import is_evaluation_seed

QUICK = CurriculumOptions(target_level=3, min_count=6, promote_at=0.5, demote_at=0.1)
MIX = [TaskShare({"name": "reverse"}, 2.0, QUICK), TaskShare({"name": "sort"}, 1.0, QUICK)]
GROUP_SIZE = 4
SOLVE = registry.create("selfplay", {"name": "solve", "group_size": GROUP_SIZE})


def mix(shares=MIX, form=SOLVE, weighting=None, **changes):
    return TaskMix(list(shares), weighting or Weighting(), form, source_context(**changes))


def names(problems):
    return [(one.task, one.seed, one.level, one.prompt) for one in problems]


def test_a_problem_hangs_on_its_number_alone():
    wanted = names(mix().draw(range(300)))
    assert names(mix().draw(range(0, 300, 2))) == wanted[::2]
    assert names(mix().draw([299, 4, 4])) == [wanted[299], wanted[4], wanted[4]]
    assert len({seed for _, seed, _, _ in wanted}) == 300
    assert not any(is_evaluation_seed(seed) for _, seed, _, _ in wanted)
    tasks = [task for task, _, _, _ in wanted]
    assert 170 <= tasks.count("reverse") <= 230, "two thirds; 3.7 standard deviations"
    assert mix().draw([]) == []


@pytest.mark.parametrize("changes", [{"seed": 6}, {"objective": "elsewhere"}])
def test_another_seed_or_objective_draws_others(changes):
    assert not set(names(mix(**changes).draw(range(50)))) & set(names(mix().draw(range(50))))


def test_levels_move_by_what_is_recorded_and_come_back_with_the_state():
    one = mix()
    one.record([("reverse", 0, 1.0)] * 6 + [("sort", 0, 0.0)] * 6)
    assert (one.curriculum.level("reverse"), one.curriculum.level("sort")) == (1, 0)
    assert one.metrics()["level/reverse"] == 1
    drawn = one.draw(range(200))
    assert {problem.level for problem in drawn if problem.task == "reverse"} == {0, 1}, "some stay easy"
    assert {problem.level for problem in drawn if problem.task == "sort"} == {0}
    again = mix()
    again.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert names(again.draw(range(200))) == names(drawn)
    assert again.metrics() == one.metrics()


def test_the_weighting_is_the_curriculums():
    learning = mix(weighting=Weighting(progress_share=1.0, floor=1e-6))
    learning.record([("sort", 0, 0.0), ("sort", 0, 1.0), ("sort", 0, 1.0)])
    assert [problem.task for problem in learning.draw(range(20))] == ["sort"] * 20


HARD = [TaskShare({"name": "reverse"}, 1.0, CurriculumOptions(start_level=6, target_level=9))]


def test_a_start_level_out_of_reach_is_lowered():
    one, asked = mix(HARD), []
    lines = one.prepare(8, "lower", lambda: asked.append(1) or 50.0)
    assert "reverse level 6: chance alone solves one in" in lines[0]
    assert lines[0].endswith(f"this run plays {100 * 8 * GROUP_SIZE:,} at 50 a second")
    assert lines[1].startswith("starts lower, at reverse level 2: chance alone solves one in 2.4e+03 episodes")
    assert len(lines) == 2
    assert one.curriculum.level("reverse") == 2
    assert asked == [1], "one rehearsal"
    again = mix(HARD)
    again.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert again.curriculum.level("reverse") == 2


def test_a_start_level_out_of_reach_is_refused_or_trusted_on_request():
    with pytest.raises(ConfigError, match=r"play\.source\.tasks\.0: reverse level 6: .*unreachable=ignore"):
        mix(HARD).prepare(8, "refuse", lambda: 1.0)
    trusting = mix(HARD)
    assert len(trusting.prepare(8, "ignore", lambda: 1.0)) == 1
    assert trusting.curriculum.level("reverse") == 6
    floor = CurriculumOptions(start_level=6, target_level=9, floor_level=5)
    with pytest.raises(ConfigError, match=r"reverse level 5: chance alone"):
        mix([TaskShare({"name": "reverse"}, 1.0, floor)]).prepare(8, "lower", lambda: 1.0)


def test_a_tasks_episodes_are_its_share_of_all():
    assert planned_episodes(MIX, 0, 100, 32) == pytest.approx(2 / 3 * 3200)
    assert planned_episodes(MIX, 1, 100, 32) == pytest.approx(1 / 3 * 3200)


LEVEL_99 = TaskShare({"name": "sort"}, 1.0, CurriculumOptions(target_level=99))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([], r"play\.source\.tasks: empty; known tasks: .*sort"),
        ([MIX[1], MIX[1]], r"play\.source\.tasks\.1: task 'sort' is given twice"),
        ([LEVEL_99], r"tasks\.0\.curriculum\.target_level=99: task 'sort' has levels 0\.\.\d"),
        ([TaskShare({"name": "srot"})], r"tasks\.0\.task\.name: unknown task 'srot'; did you mean 'sort'"),
        (
            [MIX[0], TaskShare({"name": "memory"})],
            r"play\.source\.tasks\.1\.task: 'memory' is of the kind 'environment'",
        ),
    ],
)
def test_tasks_that_do_not_fit_name_their_key(shares, message):
    with pytest.raises(ConfigError, match=message):
        mix(shares)
