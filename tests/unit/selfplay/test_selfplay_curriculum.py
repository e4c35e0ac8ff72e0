"""The curriculum: draws, promotion, falling back, resuming."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest

from rlpt.errors import CheckpointError, ConfigError
from rlpt.selfplay.curriculum import Curriculum, CurriculumOptions, Weighting


def one(**options):
    return Curriculum({"sort": 1.0}, {"sort": CurriculumOptions(min_count=8, decay=0.9, **options)}, seed=3)


def test_draws_follow_weights_levels_and_index():
    options = CurriculumOptions(start_level=2, easier_share=0.3)
    curriculum = Curriculum({"sort": 3.0, "reverse": 1.0}, {"sort": options, "reverse": options}, seed=1)
    draws = [curriculum.draw(index) for index in range(4000)]
    assert draws == [curriculum.draw(index) for index in range(4000)]
    assert len({seed for _, _, seed in draws}) == 4000
    assert Counter(task for task, _, _ in draws)["sort"] == pytest.approx(3000, abs=150)
    levels = Counter(level for _, level, _ in draws)
    assert levels[2] == pytest.approx(2800, abs=150)
    assert levels[0] == pytest.approx(600, abs=100)
    other = Curriculum({"sort": 3.0, "reverse": 1.0}, {"sort": options, "reverse": options}, seed=2)
    assert [other.draw(index) for index in range(50)] != draws[:50]


def test_promotion_needs_count_and_success():
    curriculum = one(target_level=2)
    curriculum.record([("sort", 0, 1.0)] * 7)
    assert curriculum.level("sort") == 0
    curriculum.record([("sort", 0, 1.0)])
    assert curriculum.level("sort") == 1, "one level at a time"
    curriculum.record([("sort", 0, 1.0)] * 100)
    assert curriculum.level("sort") == 1, "easier successes do not promote"
    curriculum.record([("sort", 1, i % 2) for i in range(100)])
    assert curriculum.level("sort") == 1
    curriculum.record([("sort", 1, 1.0)] * 100)
    curriculum.record([("sort", 2, 1.0)] * 100)
    assert curriculum.level("sort") == 2, "never beyond the target"
    assert curriculum.metrics() == {"level/sort": 2.0, "success/sort": pytest.approx(1.0), "share/sort": 1.0}


def test_a_hard_new_level_stays_but_forgetting_steps_back():
    curriculum = one(target_level=3)
    curriculum.record([("sort", 0, 1.0)] * 8)
    curriculum.record([("sort", 1, 0.0)] * 500 + [("sort", 0, 1.0)] * 20)
    assert curriculum.level("sort") == 1
    assert {level for _, level, _ in map(curriculum.draw, range(200))} == {0, 1}
    curriculum.record([("sort", 0, 0.0)] * 20)
    assert curriculum.level("sort") == 0
    assert {level for _, level, _ in map(curriculum.draw, range(200))} == {0}
    curriculum.record([("sort", 0, 1.0)] * 40)
    assert curriculum.level("sort") == 1


def test_probes_ask_the_level_above_and_may_open_it():
    curriculum = one(target_level=2, easier_share=0.0, probe_share=0.25)
    levels = Counter(level for _, level, _ in map(curriculum.draw, range(2000)))
    assert levels[1] == pytest.approx(500, abs=80)
    assert set(levels) == {0, 1}
    curriculum.record([("sort", 1, 1.0)] * 8)
    assert curriculum.level("sort") == 1, "solved in probes: the level opens"
    curriculum.record([("sort", 1, 1.0)] * 8)
    assert curriculum.level("sort") == 2
    assert {level for _, level, _ in map(curriculum.draw, range(200))} == {2}, "nothing above the target"


def test_a_level_that_was_left_must_be_earned_anew():
    curriculum = one(target_level=3)
    curriculum.record([("sort", 0, 1.0)] * 8)
    curriculum.record([("sort", 1, 1.0)] * 7 + [("sort", 0, 0.0)] * 20)
    assert curriculum.level("sort") == 0
    assert [row[1] for row in curriculum.table()] == [0], "what was seen at the level that was left is forgotten"
    curriculum.record([("sort", 0, 1.0)] * 40)
    curriculum.record([("sort", 1, 1.0)])
    assert curriculum.level("sort") == 1, "one success is not enough after the return"


def test_tasks_that_are_being_learned_come_more_often():
    names = ("mastered", "learning", "hopeless")
    curriculum = Curriculum(
        dict.fromkeys(names, 1.0),
        {name: CurriculumOptions(min_count=10_000, decay=0.95) for name in names},
        seed=1,
        weighting=Weighting(progress_share=0.9, floor=0.02),
    )
    assert curriculum.shares() == pytest.approx(dict.fromkeys(names, 1 / 3))
    for index in range(400):
        rates = {"mastered": 1.0, "learning": max(0.0, (index - 320) / 80), "hopeless": 0.0}
        curriculum.record((name, 0, rate) for name, rate in rates.items())
    shares = curriculum.shares()
    assert shares["learning"] > 0.6
    assert shares["mastered"] == pytest.approx(shares["hopeless"])
    assert shares["mastered"] > 0.1 / 3, "a fixed share stays"
    drawn = Counter(task for task, _, _ in map(curriculum.draw, range(3000)))
    assert drawn["learning"] / 3000 == pytest.approx(shares["learning"], abs=0.03)
    forgotten = [("mastered", 0, 0.0)] * 10
    curriculum.record(forgotten)
    assert curriculum.shares()["mastered"] > shares["mastered"], "forgetting is progress too, downwards"


class Learner:
    """A simulated policy: its skill at a level grows where it succeeds now and then, carries over to the next level,
    and fades at levels that are not played."""

    def __init__(self, levels, carry=0.7):
        self.skill, self.carry = [0.15] + [0.0] * (levels - 1), carry

    def attempt(self, level, rng):
        below = self.skill[level - 1] if level else 1.0
        rate = min(0.98, max(self.skill[level], 0.3 * self.carry * below))
        is_right = rng.random() < rate
        self.skill = [s * (1 - 2e-4) for s in self.skill]
        self.skill[level] = min(0.98, rate + (0.01 if is_right else 0.0))
        return float(is_right)


def simulate(curriculum, learner, draws, seed=0, group=16):
    rng, levels = random.Random(seed), []
    for step in range(draws // group):
        drawn = [curriculum.draw(step * group + i) for i in range(group)]
        curriculum.record((task, level, learner.attempt(level, rng)) for task, level, _ in drawn)
        levels.append(curriculum.level("sort"))
    return levels


@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_learner_is_led_to_the_target_and_one_without_a_curriculum_is_not(seed):
    options = {"target_level": 5, "easier_share": 0.3, "min_count": 32, "decay": 0.97}
    led = Curriculum({"sort": 1.0}, {"sort": CurriculumOptions(**options, probe_share=0.05)}, seed)
    learner = Learner(6)
    levels = simulate(led, learner, 24_000, seed)
    assert levels[-1] == 5
    assert learner.skill[5] > 0.8
    assert all(abs(b - a) <= 1 for a, b in pairwise(levels))
    options |= {"start_level": 5, "easier_share": 0.0}
    direct = Curriculum({"sort": 1.0}, {"sort": CurriculumOptions(**options)}, seed)
    alone = Learner(6)
    simulate(direct, alone, 24_000, seed)
    assert alone.skill[5] < 0.05


def test_a_learner_that_collapses_is_taken_back_and_led_up_again():
    options = CurriculumOptions(target_level=3, min_count=32, decay=0.97)
    curriculum, learner = Curriculum({"sort": 1.0}, {"sort": options}, 4), Learner(4)
    assert simulate(curriculum, learner, 16_000)[-1] == 3
    learner.skill = [0.2, 0.0, 0.0, 0.0]
    levels = simulate(curriculum, learner, 24_000, seed=1)
    assert min(levels) <= 1
    assert levels[-1] == 3


def test_a_start_level_can_be_lowered_before_the_first_attempt_only():
    curriculum = one(start_level=2)
    curriculum.start_at("sort", 1)
    assert curriculum.level("sort") == 1
    curriculum.record([("sort", 1, 1.0)])
    with pytest.raises(AssertionError, match="before the first attempt"):
        curriculum.start_at("sort", 0)


def test_floor_holds():
    curriculum = one(start_level=2, floor_level=1, easier_share=0.5)
    curriculum.record([("sort", 1, 0.0)] * 20 + [("sort", 0, 0.0)] * 20)
    assert curriculum.level("sort") == 1
    curriculum.record([("sort", 0, 0.0)] * 20)
    assert {level for _, level, _ in map(curriculum.draw, range(100))} == {1}


def test_success_is_the_mean_of_what_was_seen():
    curriculum = one()
    curriculum.record([("sort", 0, 1.0), ("sort", 0, 1.0)])
    assert curriculum.metrics()["success/sort"] == pytest.approx(1.0), "no bias towards 0 at the start"
    curriculum.record([("sort", 0, 0.0)])
    weights = [0.81, 0.9, 1.0]
    assert curriculum.metrics()["success/sort"] == pytest.approx((weights[0] + weights[1]) / sum(weights))


def test_resume_is_exact():
    first, second = one(), one()
    first.record([("sort", 0, 1 / 3)] * 5 + [("sort", 1, 0.7)])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for curriculum in (first, second):
        curriculum.record([("sort", 0, 1.0)] * 40)
    assert first.state_dict() == second.state_dict()
    assert first.level("sort") == 1
    assert [first.draw(i) for i in range(50)] == [second.draw(i) for i in range(50)]


def test_state_beyond_the_target_is_refused():
    state = {"sort": {"level": 5, "progress": []}}
    with pytest.raises(CheckpointError, match=r"level 5, outside floor_level=0 \.\. target_level=3"):
        one().load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"start_level": 4, "target_level": 3},
        {"floor_level": 1},
        {"easier_share": 1.0},
        {"probe_share": -0.1},
        {"easier_share": 0.5, "probe_share": 0.5},
        {"promote_at": 0.3, "demote_at": 0.4},
        {"min_count": 0},
        {"decay": 1.0},
    ],
)
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=str(next(iter(options)))):
        CurriculumOptions(**options)


@pytest.mark.parametrize("weights", [{}, {"sort": 0.0}, {"sort": -1.0}, {"reverse": 1.0}])
def test_wrong_weights(weights):
    with pytest.raises(ConfigError, match="curriculum: weights"):
        Curriculum(weights, {"sort": CurriculumOptions()} if weights else {}, seed=0)


@pytest.mark.parametrize("options", [{"progress_share": 1.5}, {"floor": 0.0}])
def test_wrong_weighting(options):
    with pytest.raises(ConfigError, match=str(next(iter(options)))):
        Weighting(**options)
