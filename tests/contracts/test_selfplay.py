"""What every registered form of self-play owes, shown with a player that draws at random."""

import numpy as np
import pytest
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.selfplay  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.rewards.learnability import SOLVE_RATE
from rlpt.selfplay.base import Actor
from rlpt.tasks.base import create_task, keyed_hash, train_seed
from rlpt.types import Problem

PLAYED = {
    "task": ("reverse", "countdown"),
    "environment": ("memory", "calculator"),
    "game": ("tic_tac_toe", "nim"),
    "program": ("deduction", "induction"),
}
TASKS = {name: create_task({"name": name}) for names in PLAYED.values() for name in names}
PLAYERS = {"task": "solve", "environment": "converse", "game": "duel", "program": "propose"}  # whose problems they are
TOKENIZER = CharacterTokenizer()


def create(name):
    passages = "passage" in registry.lookup("selfplay", name).kinds  # they are all text: the player needs a legal set
    return registry.create("selfplay", {"name": name, **({"characters": "01"} if passages else {})})


def problem_of(kind, index):
    if kind == "passage":
        context, future = f"{index:04b}", f"{index + 1:04b}"
        meta = {"context": tuple(TOKENIZER.encode(context)), "future": tuple(TOKENIZER.encode(future))}
        return Problem("passage", train_seed(1, index), 0, context, future, meta)
    task = TASKS[PLAYED[kind][index % 2]]
    return create(PLAYERS[kind]).problem(task, train_seed(1, index), 1)


def peers_of(form, key):
    """The ids of the sets that a problem's trajectories are compared in."""
    if "game" in form.kinds and "task" not in form.kinds:
        return {keyed_hash("peers", key, seat) >> 1 for seat in range(2)}
    return {key}


@pytest.fixture(params=registry.names("selfplay"))
def play(request):
    form = create(request.param)

    def run(indices):
        problems = [problem_of(form.kinds[0], i) for i in indices]
        keys = [train_seed(2, i) for i in indices]
        return form.play(problems, TASKS, Actor(RandomGenerator(), TOKENIZER), keys=keys, policy_step=5)

    run.form = form
    return run


def test_trajectories_are_whole(play):
    for episode in play(range(4)):
        judged = {t.role for t in episode.trajectories if t.evidence_mask is None}
        assert set(episode.outcome) - {SOLVE_RATE} == judged
        for t in episode.trajectories:
            if t.role in judged:
                assert 0 <= episode.outcome_of(t) <= 1
            length = len(t.token_ids)
            assert len(t.action_mask) == len(t.logprobs) == length
            assert t.kept_ids is not None
            assert len(t.kept_ids) == length
            assert (t.token_ids.dtype, t.action_mask.dtype, t.logprobs.dtype) == (np.int64, np.bool_, np.float32)
            assert t.action_mask.any()
            assert not t.logprobs[~t.action_mask].any()
            assert all((kept is not None) == bool(mine) for kept, mine in zip(t.kept_ids, t.action_mask))
            assert t.policy_step == 5
            if t.evidence_mask is not None:
                assert t.evidence_mask.any()
                assert not (t.evidence_mask & t.action_mask).any()


@pytest.mark.parametrize("name", registry.names("selfplay"))
def test_tasks_of_another_kind_are_refused_by_the_key(name):
    form = create(name)
    for kind, (task, _) in PLAYED.items():
        if kind in form.kinds or (kind == "program" and "task" in form.kinds):  # a program task is a task like others
            form.check(TASKS[task], "play.tasks.0.task")
            problem = TASKS[task].sample(train_seed(1, 0), 2)
            if form.needs_luck:
                assert 0 < form.chance(TASKS[task], problem, TOKENIZER) < 0.1
        else:
            named = TASKS[task].kind
            with pytest.raises(ConfigError, match=rf"play\.tasks\.0\.task: '{task}' is of the kind '{named}'"):
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
        peers = peers_of(play.form, key)
        return [t.token_ids.tolist() for e in episodes for t in e.trajectories if t.peers in peers]

    key = train_seed(2, 3)
    assert tokens(play([3]), key) == tokens(play([0, 1, 2, 3]), key) != []
