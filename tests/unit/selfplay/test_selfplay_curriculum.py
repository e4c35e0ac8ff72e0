"""The curriculum: draws, promotion, falling back, resuming."""

import json
from collections import Counter

import pytest

from rlpt.errors import CheckpointError, ConfigError
from rlpt.selfplay.curriculum import Curriculum, CurriculumOptions


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
    assert curriculum.metrics() == {"level/sort": 2.0, "success/sort": pytest.approx(1.0)}


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
