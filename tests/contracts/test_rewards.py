"""What every registered reward owes: finite numbers within its bounds, the right order, and no error that turns into a
number."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, trajectory_of
from helpers.scorers import TabularScorer

import rlpt.rewards
import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.rewards.base import PlayReward, Reward, RewardContext, Rubric
from rlpt.tasks.base import create_task, train_seed
from rlpt.types import Episode

TASK = create_task({"name": "reverse"})
PROBLEM = TASK.sample(train_seed(1, 0), 2)
WORKED = TASK.solution(PROBLEM)


def length_judge(texts):
    return [min(1.0, len(text) / 100) for text in texts]


def head(token_ids, masks):
    return [np.where(mask, np.sin(np.arange(len(mask))), 0).astype(np.float32) for mask in masks]


CONTEXT = RewardContext(
    tasks={TASK.name: TASK},
    scorers={name: TabularScorer(seed, TOKENIZER.vocab_size) for seed, name in enumerate(("policy", "ema"))},
    heads={"process": head},
    recent=["<|think|>12 34<|answer|>1<|end|>"],
    tokenizer=TOKENIZER,
)


@dataclass(frozen=True)
class Owed:
    """How a reward is made here, the bounds it states, and whether it ranks a worked right answer above a wrong one
    (`right_wins`) and an answer above a text that was cut short (`whole_wins`)."""

    options: tuple = ()
    low: float = 0.0
    high: float = 1.0
    right_wins: bool = False
    whole_wins: bool = False
    tells_apart: bool = True


OWED = {
    "correct": [
        Owed(right_wins=True, whole_wins=True),
        Owed((("exact_bonus", 0.5), ("exact_only", True)), 0, 1.5, True, True),
        Owed((("flip", 0.3),)),
    ],
    "cosine_length": [Owed((("limit", 200),), -10, 2, True, True)],
    "exploration": [
        Owed((("scale", 20),), -10, 0),
        Owed((("scale", 20), ("soft", True), ("unanswered", "none")), -10, 0, whole_wins=True),
        Owed((("scale", 20), ("shape", "log"), ("count", "distinct")), 0, 10),
        Owed((("scale", 2), ("shape", "saturating"), ("relative", True))),
    ],
    "format": [Owed(whole_wins=True)],
    "game_return": [Owed((), -1, 1, True, True)],
    "information_gain": [Owed((("baseline", "ema"),), -math.inf, math.inf)],
    "judge": [Owed((("judge", f"{__name__}:length_judge"),))],
    "learnability": [Owed(), Owed((("useless", -0.5), ("malformed", -1)), -1, 1, whole_wins=True)],
    "novelty": [Owed()],
    "overlong": [Owed((("limit", 12), ("buffer", 8)), -1, 0)],
    "process": [
        Owed((("measure", measure), ("dense", dense)), right_wins=True)
        for measure in ("mean", "all", "until_first_error")
        for dense in (False, True)
    ],
    "rlsp": [Owed((), -0.5, 1, True, True), Owed((("answer", "first"),), -0.5, 1, True, True)],
    "shaping": [
        Owed((), -1, 1, tells_apart=False),  # all of it is the start's potential
        Owed((("gamma", 0.9),), -math.inf, math.inf),
    ],
}
CASES = [pytest.param(name, owed, id=f"{name}-{index}") for name in OWED for index, owed in enumerate(OWED[name])]


def episode(written, outcome, rate=0.5, cut=False):
    """Of one proposer, so that every reward has something to look at."""
    pieces = (f"<|prompt|>{PROBLEM.prompt}<|think|>", written)
    trajectory = trajectory_of(
        *pieces, role="proposer", peers=3, truncated=cut, well_formed=float(not cut), evidence="" if cut else "9"
    )
    if cut:  # what `think` does with a thought that reached its limit
        trajectory = trajectory_of(
            *pieces, "<|answer|>", role="proposer", peers=3, truncated=True, well_formed=0.0, evidence="9"
        )
    return Episode(PROBLEM, [trajectory], {"proposer": outcome, "solve_rate": rate}, "<|think|>" + written)


def play():
    """A worked right answer, a wrong one after a wrong thought, one without a thought, an empty one, a cut text."""
    return [
        episode(f"{WORKED}<|answer|>{PROBLEM.answer}<|end|>", 1.0),
        episode("x y  zz<|answer|>0<|end|>", 0.2, rate=0.0),
        episode("<|answer|>0<|end|>", 0.2, rate=1.0),
        episode("<|answer|><|end|>", 0.0),
        episode(WORKED[:2], 0.0, cut=True),
    ]


def made(name, owed):
    return registry.create("reward", {"name": name, **dict(owed.options)})


def raw(reward, episodes):
    if isinstance(reward, PlayReward):
        return [value for values in reward.over(episodes, CONTEXT) for value in values]
    return [reward(one.problem, trajectory, one) for one in episodes for trajectory in one.trajectories]


def scored(name, owed, episodes):
    Rubric.from_config([{"name": name, **dict(owed.options)}]).score(episodes, CONTEXT)
    return [trajectory.rewards[name] for one in episodes for trajectory in one.trajectories]


def test_every_registered_reward_is_here():
    assert sorted(OWED) == registry.names("reward")


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_it_is_one_of_the_two_kinds(name, owed):
    reward = made(name, owed)
    assert isinstance(reward, Reward) != isinstance(reward, PlayReward)


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_bounds_and_order(name, owed):
    right, wrong, hasty, empty, cut = found = scored(name, owed, play())
    assert all(math.isfinite(value) and owed.low - 1e-9 <= value <= owed.high + 1e-9 for value in found)
    assert (len(set(found)) > 1) == owed.tells_apart
    if owed.right_wins:
        assert right > max(wrong, hasty, empty)
    if owed.whole_wins:
        assert right > cut
        assert wrong >= cut


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_token_rewards_fall_on_actions_and_sum_to_the_part(name, owed):
    episodes = play()
    values = raw(made(name, owed), episodes)
    parts = scored(name, owed, episodes)
    for one, value, part in zip(episodes, values, parts, strict=True):
        trajectory = one.trajectories[0]
        if isinstance(value, np.ndarray):
            assert value.shape == trajectory.token_ids.shape
            assert not value[~trajectory.action_mask].any()
        assert float(np.sum(value)) == pytest.approx(part)
        assert (trajectory.token_rewards is not None) == isinstance(value, np.ndarray)


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_scores_are_repeatable_and_do_not_hang_on_the_order(name, owed):
    found = scored(name, owed, play())
    assert scored(name, owed, play()) == found
    assert scored(name, owed, play()[::-1]) == found[::-1]


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_a_play_without_episodes_is_no_trouble(name, owed):
    assert scored(name, owed, []) == []


class Torn:
    """A trajectory whose every field raises."""

    def __getattr__(self, name):
        raise RuntimeError(f"torn: {name}")


@pytest.mark.parametrize(("name", "owed"), CASES)
def test_an_exception_is_no_reward(name, owed):
    episodes = play()
    episodes[1].trajectories[0] = Torn()
    with pytest.raises(RuntimeError, match="torn"):
        scored(name, owed, episodes)
