"""RLSP's reward: its table, and the traps in the code that it comes from."""

import math

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, answering, thinking, trajectory_of, values

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.base import RewardContext, Rubric
from rlpt.rewards.exploration import Exploration, RLSPVerifier, num_fresh
from rlpt.tasks.base import create_task, train_seed
from rlpt.types import Episode

CONTEXT = RewardContext(tokenizer=TOKENIZER)
TASK = create_task({"name": "reverse"})
PROBLEM = TASK.sample(train_seed(1, 0), 2)
TASKS = RewardContext(tokenizer=TOKENIZER, tasks={"reverse": TASK})
DE_BRUIJN = "".join(str(value) for value in range(1000, 9999))  # a long text with many different n-grams


def thought_of(length, **options):
    return thinking(DE_BRUIJN[:length] + "<|answer|>21<|end|>", **options)


def of(reward, *episodes, context=CONTEXT):
    return values(reward, episodes, context)


def test_the_table_of_the_paper():
    lengths = (0, 1, 50, 100, 250, 500, 1000, 4096)
    expected = [-10, -10, -10, -10, -4, -2, -1, -1000 / 4096]
    assert of(Exploration(scale=1000), *map(thought_of, lengths)) == expected
    rubric = Rubric.from_config([{"name": "exploration", "scale": 1000}, {"name": "rlsp"}])
    episodes = [thought_of(250, outcome=1.0), thought_of(250), thinking(DE_BRUIJN[:250], truncated=True)]
    rubric.score(episodes, CONTEXT)
    assert [episode.trajectories[0].reward for episode in episodes] == [-3, -4, -4.5]
    assert episodes[0].trajectories[0].rewards == {"exploration": -4, "rlsp": 1}, "the halves are told apart"


@pytest.mark.parametrize(
    ("shape", "length", "value"),
    [
        ("log", 0, 0),
        ("log", 500, math.log(2)),
        ("saturating", 0, 0),
        ("saturating", 500, 1 - math.exp(-1)),
        ("inverse", 500, -1),
    ],
)
def test_shapes_by_hand(shape, length, value):
    assert of(Exploration(scale=500, shape=shape), thought_of(length)) == pytest.approx([value])


@pytest.mark.parametrize("options", [{"soft": True}, {"shape": "log"}, {"shape": "saturating"}, {"clamp": 1e6}])
def test_shapes_rise_and_are_concave(options):
    reward = Exploration(scale=20, **options)
    found = np.array([reward.value(length, 20.0) for length in range(1, 200)])
    assert (np.diff(found) > 0).all()
    assert (np.diff(found, 2) < 0).all()


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [({}, -10, 0), ({"soft": True}, -10, 0), ({"shape": "log"}, 0, 10), ({"shape": "saturating"}, 0, 1)],
)
def test_bounds(options, low, high):
    reward = Exploration(scale=1000, **options)
    found = [reward.value(length, 1000.0) for length in (0, 1, 10, 10**4, 10**9)]
    assert min(found) == found[0] == low
    assert max(found) == found[-1] <= high


@pytest.mark.parametrize("options", [{}, {"soft": True}, {"shape": "log"}, {"shape": "saturating"}])
def test_trap_no_thought_is_never_better_than_a_short_one(options):
    """The code divides by l = 0 there, and its catch-all makes that a 0: better than -4 at l = 250."""
    reward = Exploration(scale=1000, **options)
    none, answered_at_once, short, longer = of(
        reward, thinking("<|answer|>21<|end|>"), answering("21<|end|>"), thought_of(3), thought_of(250)
    )
    assert none == answered_at_once
    assert none <= short < longer


def test_trap_what_the_clamp_makes_flat_the_soft_shape_does_not():
    short = [thought_of(length) for length in (0, 5, 50, 99)]
    assert of(Exploration(scale=1000), *short) == [-10] * 4
    soft = of(Exploration(scale=1000, soft=True), *short, thought_of(900))
    assert soft == [-10, -1000 / 105, -1000 / 150, -1000 / 199, -1]


def test_trap_a_revised_answer_counts_and_only_what_stands_before_it_earns_length():
    revised = thinking("12345<|answer|>12<|answer|>21<|end|>", outcome=1.0)
    once = thinking("12345<|answer|>2121212121<|end|>")
    length = Exploration(scale=1).length
    assert length(revised.trajectories[0], CONTEXT) == 7, "the thought and the answer that was revised, no marks"
    assert length(once.trajectories[0], CONTEXT) == 5, "what stands behind the mark earns nothing"
    assert Exploration(scale=1, answer="first").length(revised.trajectories[0], CONTEXT) == 5
    marks = thinking("<|answer|>" * 9 + "21<|end|>")
    assert length(marks.trajectories[0], CONTEXT) == 0, "marks are no thought"


def test_the_verifier_scores_the_last_answer_or_the_first():
    right, wrong = PROBLEM.answer, PROBLEM.answer[::-1] + "0"
    guessed = thinking(f"<|answer|>{right}<|answer|>{wrong}<|end|>", 0.0, PROBLEM)
    mended = thinking(f"<|answer|>{wrong}<|answer|>{right}<|end|>", 1.0, PROBLEM)
    assert of(RLSPVerifier(), guessed, mended, context=TASKS) == [0, 1]
    assert of(RLSPVerifier(answer="first"), guessed, mended, context=TASKS) == [1, 0]


def test_the_verifier_takes_half_a_point_where_there_is_no_answer():
    right = PROBLEM.answer
    episodes = [
        thinking("12<|end|>", problem=PROBLEM),
        thinking("12", problem=PROBLEM, truncated=True),
        thinking(f"12<|answer|>{right}", problem=PROBLEM, truncated=True),
        answering(f"{right}<|end|>", 1.0, PROBLEM),
        answering("0<|end|>", 0.9, PROBLEM),
    ]
    assert of(RLSPVerifier(), *episodes, context=TASKS) == [-0.5, -0.5, -0.5, 1, 0]
    assert of(RLSPVerifier(answer="first"), *episodes, context=TASKS) == [-0.5, -0.5, -0.5, 1, 0]
    assert of(RLSPVerifier(no_answer=-2.0), episodes[0]) == [-2]


def test_the_first_answer_of_several_turns_is_refused():
    talk = trajectory_of("<|prompt|>x<|turn|>", "a<|end|>", "<|result|>1<|turn|>", "c<|end|>")
    played = Episode(PROBLEM, [talk], {"solver": 1.0})
    assert of(RLSPVerifier(), played) == [1]
    with pytest.raises(ConfigError, match=r"'reverse' was played in 2; set answer: last"):
        of(RLSPVerifier(answer="first"), played, context=TASKS)


@pytest.mark.parametrize("filler", [" ", "a", "ab ", "wait, "])
def test_trap_padding_earns_nothing_with_distinct_counts(filler):
    padded = thinking((filler * 300)[:300] + "<|answer|>21<|end|>").trajectories[0]
    honest = thought_of(60).trajectories[0]
    assert Exploration(scale=1).length(padded, CONTEXT) == 300
    distinct = Exploration(scale=1, count="distinct", ngram=8)
    assert distinct.length(padded, CONTEXT) == 7 + len(filler), "a bound that no repetition moves"
    assert distinct.length(honest, CONTEXT) == 60


def test_distinct_counts_by_hand():
    assert num_fresh("abcabc", 1) == 3
    assert num_fresh("abcabc", 3) == 5  # a, ab, abc, bca, cab, (abc again)
    assert num_fresh("", 3) == 0
    assert num_fresh("  0 0 0 ", 2) == 4  # " ", "  ", " 0", "0 "


def test_characters_are_a_unit_of_their_own():
    episode = thinking("éé1<|answer|>21<|end|>")  # é: two tokens
    assert Exploration(scale=1).length(episode.trajectories[0], CONTEXT) == 5
    assert Exploration(scale=1, unit="characters").length(episode.trajectories[0], CONTEXT) == 3
    assert (
        Exploration(scale=1, unit="characters", count="distinct", ngram=1).length(episode.trajectories[0], CONTEXT) == 2
    )


def test_text_without_an_answer_is_long_only_if_asked_for():
    unanswered = [thinking("12345"), thinking("12345<|answer|>2", truncated=True)]
    assert of(Exploration(scale=10), *unanswered) == [-2, -2]
    assert of(Exploration(scale=10, unanswered="none"), *unanswered, thought_of(5)) == [-10, -10, -2]


def test_all_turns_count():
    talk = trajectory_of(
        "<|prompt|>x<|think|>", "pp<|answer|>a<|end|>", "<|result|>1<|think|>", "qqq<|answer|>c<|end|>"
    )
    assert Exploration(scale=1).length(talk, CONTEXT) == 5


def test_a_relative_scale_follows_the_worked_solution():
    problems = [TASK.sample(train_seed(1, 0), level) for level in (0, 5)]
    episodes = [thinking("12345678<|answer|>1<|end|>", problem=problem) for problem in problems]
    expected = [-2 * len(TASK.solution(problem)) / 8 for problem in problems]
    assert expected[0] != expected[1]
    assert of(Exploration(scale=2, relative=True), *episodes, context=TASKS) == expected
    with pytest.raises(ConfigError, match="there is no task 'reverse' to ask"):
        of(Exploration(scale=2, relative=True), *episodes)


@pytest.mark.parametrize("shape", ["inverse", "log", "saturating"])
def test_scale_0_is_the_control_run(shape):
    found = of(Exploration(scale=0, shape=shape), thinking("<|answer|>21<|end|>"), thought_of(9))
    assert found == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1}, "need scale >= 0"),
        ({"scale": 1, "clamp": 0}, "clamp > 0"),
        ({"scale": 1, "ngram": 0}, "ngram >= 1"),
        ({"scale": 1, "shape": "log", "soft": True}, "only inverse is flat"),
        ({"scale": 1, "shape": "square"}, r"part\.shape"),
        ({}, r"part\.scale: Field required"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create("reward", {"name": "exploration", **options}, "part")
