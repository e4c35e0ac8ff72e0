"""What every registered form of self-play owes, shown with a player that draws at random."""

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.rewards
import rlpt.selfplay  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.rewards.base import Rubric
from rlpt.tasks.base import create_task, train_seed

PLAYED = {"task": ("reverse", "countdown"), "environment": ("memory", "calculator")}
TASKS = {name: create_task({"name": name}) for names in PLAYED.values() for name in names}


@pytest.fixture(params=registry.names("selfplay"))
def play(request):
    form = registry.create("selfplay", {"name": request.param})

    def run(indices):
        names = [PLAYED[form.kinds[0]][i % 2] for i in indices]
        problems = [TASKS[name].sample(train_seed(1, i), 1) for name, i in zip(names, indices)]
        keys = [train_seed(2, i) for i in indices]
        rubric = Rubric.from_config()
        return form.play(problems, TASKS, RandomGenerator(), CharacterTokenizer(), rubric, keys=keys, policy_step=5)

    return run


def test_trajectories_are_whole(play):
    for episode in play(range(4)):
        assert set(episode.outcome) == {t.role for t in episode.trajectories}
        for t in episode.trajectories:
            length = len(t.token_ids)
            assert len(t.action_mask) == len(t.logprobs) == length
            assert t.kept_ids is not None
            assert len(t.kept_ids) == length
            assert (t.token_ids.dtype, t.action_mask.dtype, t.logprobs.dtype) == (np.int64, np.bool_, np.float32)
            assert t.action_mask.any()
            assert not t.logprobs[~t.action_mask].any()
            assert all((kept is not None) == bool(mine) for kept, mine in zip(t.kept_ids, t.action_mask))
            assert t.policy_step == 5
            assert t.reward == pytest.approx(t.rewards["correct"] + 0.1 * t.rewards["format"])


@pytest.mark.parametrize("name", registry.names("selfplay"))
def test_tasks_of_another_kind_are_refused_by_the_key(name):
    form = registry.create("selfplay", {"name": name})
    for kind, (task, _) in PLAYED.items():
        if kind in form.kinds:
            form.check(TASKS[task], "play.tasks.0.task")
            problem = TASKS[task].sample(train_seed(1, 0), 2)
            assert 0 < form.chance(TASKS[task], problem, CharacterTokenizer()) < 0.1
        else:
            with pytest.raises(ConfigError, match=rf"play\.tasks\.0\.task: '{task}' is of the kind '{kind}'"):
                form.check(TASKS[task], "play.tasks.0.task")


def test_peers_share_a_problem_and_groups_differ(play):
    groups = {}
    for episode in play(range(6)):
        for t in episode.trajectories:
            groups.setdefault((t.peers, t.role), []).append((episode.problem, t.token_ids.tolist()))
    assert len(groups) >= 6
    for group in groups.values():
        assert len({problem.prompt for problem, _ in group}) == 1
        assert len({tuple(ids) for _, ids in group}) > 1, "attempts differ"


def test_noise_depends_on_the_key_alone(play):
    def tokens(episodes, key):
        return [t.token_ids.tolist() for e in episodes for t in e.trajectories if t.peers == key]

    key = train_seed(2, 3)
    assert tokens(play([3]), key) == tokens(play([0, 1, 2, 3]), key) != []
