"""Held-out problems: figures by hand, any sharding alike, seeds and keys that never change."""

import threading

import numpy as np
import pytest

from rlpt.config import EvaluationConfig
from rlpt.errors import ConfigError
from rlpt.evaluation.reasoning import evaluate_tasks, evaluation_key, task_labels
from rlpt.tasks.base import evaluation_seed
from rlpt.tasks.lists.reverse import Reverse
from rlpt.tasks.lists.sort import Sort
from rlpt.types import Episode

SORT = Sort()
REVERSE = Reverse()
OPTIONS = EvaluationConfig(problems=6, samples=4, pass_at=[1, 2, 4])


class Player:
    """Answers `num_right(problem)` of `samples` right; the others get 0.5. Sample n may think 4 n characters."""

    def __init__(self, num_right, samples=4, thinks=False):
        self.num_right, self.samples, self.thinks, self.seen = num_right, samples, thinks, []

    def __call__(self, problems, tasks, keys):
        self.seen += zip(problems, keys, strict=True)
        episodes = []
        for problem in problems:
            for sample in range(self.samples):
                outcome = 1.0 if sample < self.num_right(problem) else 0.5
                thought = f"<|think|>{'1:1 ' * sample}<|answer|>1<|end|>" if self.thinks else ""
                episodes.append(Episode(problem, [], {"solver": outcome}, thought))
        return episodes


def index_of(problem):
    return [evaluation_seed(i) for i in range(6)].index(problem.seed)


def test_figures_by_hand():
    result = evaluate_tasks([(SORT, 1)], Player(lambda p: 2 if index_of(p) < 3 else 0), OPTIONS)["sort"]
    assert result["level"] == 1
    assert result["pass@1"] == pytest.approx(0.25)
    assert result["pass@2"] == pytest.approx((1 - 1 / 6) / 2)
    assert result["pass@4"] == pytest.approx(0.5)
    assert result["mean_score"] == pytest.approx((3 * 3.0 + 3 * 2.0) / 24)
    assert result["interval"][0] < 0.25 < result["interval"][1]
    assert (result["problems"], result["samples"]) == (6, 4)


@pytest.mark.parametrize("data_size", [2, 4, 7])
def test_any_sharding_gives_the_same(data_size):
    def play():
        return Player(lambda p: index_of(p) % 4, thinks=True)

    entries = [(SORT, 1), (REVERSE, 2)]
    alone = evaluate_tasks(entries, play(), OPTIONS)
    assert alone["sort"]["behaviours"]["thoughts"] == 24
    assert alone["sort"]["behaviours"]["length"] == pytest.approx(6)
    meeting = threading.Barrier(data_size, timeout=10)
    parts, results = {}, {}

    def run(rank):
        def gather(mine):
            parts[rank] = mine
            meeting.wait()
            return [parts[one] for one in range(data_size)]

        results[rank] = evaluate_tasks(entries, play(), OPTIONS, rank, data_size, gather)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(data_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(data_size), alone)


def test_problems_are_held_out_and_keys_repeat():
    first, second = Player(lambda p: 0), Player(lambda p: 1)
    evaluate_tasks([(SORT, 1)], first, OPTIONS)
    evaluate_tasks([(SORT, 1)], second, OPTIONS)
    assert first.seen == second.seen
    assert [p.seed for p, _ in first.seen] == [evaluation_seed(i) for i in range(6)]
    keys = [key for _, key in first.seen]
    assert len(set(keys)) == 6
    assert keys == [evaluation_key(p) for p, _ in first.seen]
    assert np.array(keys, dtype=np.uint64).tolist() == keys


def test_labels():
    assert task_labels([("sort", 1), ("sort", 3), ("reverse", 2)]) == ["sort@1", "sort@3", "reverse"]
    with pytest.raises(ConfigError, match="'sort@1' is listed 2 times"):
        task_labels([("sort", 1), ("sort", 1)])


def test_a_wrong_number_of_episodes_is_an_error():
    with pytest.raises(ValueError, match=r"3 episodes .* evaluation.samples=4"):
        evaluate_tasks([(SORT, 1)], Player(lambda p: 0, samples=3), OPTIONS)
