"""The episode source: what it plays does not depend on the ranks, resumes exactly, and scales with its share."""

import json
import threading
from dataclasses import fields, replace

import pytest
import torch
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.algorithms
import rlpt.rollout.source  # noqa: F401
from rlpt import registry
from rlpt.batch import SourceContext
from rlpt.errors import ConfigError
from rlpt.rewards.base import Rubric

GROUPS, SIZE = 8, 4
CURRICULUM = {"target_level": 3, "min_count": 6, "promote_at": 0.04, "demote_at": 0.01}
SPEC = {
    "name": "episodes",
    "groups": GROUPS,
    "selfplay": {"name": "solve", "group_size": SIZE},
    "tasks": [
        {"task": {"name": "reverse"}, "weight": 2.0, "curriculum": CURRICULUM},
        {"task": {"name": "sort"}, "curriculum": CURRICULUM},
    ],
}


def open_source(
    rank=0,
    size=1,
    gather=lambda value: [value],
    agree=lambda value: value,
    algorithm="grpo",
    reference=None,
    options=(),
    **changes,
):
    context = SourceContext(
        objective="play",
        tokenizer=CharacterTokenizer(),
        sequence_length=64,
        micro_batch_size=4,
        data_rank=rank,
        data_size=size,
        seed=5,
        gather=gather,
        agree=agree,
        algorithm=registry.create("algorithm", {"name": algorithm, **dict(options)}),
        steps=100,
        generator=RandomGenerator(),
        reference=reference,
    )
    return registry.create("source", SPEC | changes, "objectives.play.source").open(context)


class Ranks:
    """A gather among threads, as the ranks of a data-parallel group have it."""

    def __init__(self, size):
        self.size, self.values = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def run(self, work):
        """`work(source, rank)` on every rank; their results."""
        results = [None] * self.size

        def rank_main(rank):
            def gather(value):
                self.values[rank] = value
                self.barrier.wait()
                everyone = list(self.values)
                self.barrier.wait()
                return everyone

            results[rank] = work(open_source(rank, self.size, gather), rank)

        threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert None not in results
        return results


def played(source, rank=0, takes=6):
    """[episodes of each take as comparable records], metrics of each take, final state."""
    records, figures = [], []
    for step in range(takes):
        source.take(2, step=step)
        records.append(
            [
                (e.problem.task, e.problem.seed, e.problem.level, e.text, t.peers, t.reward, t.advantage)
                for e in source.last_episodes
                for t in e.trajectories
            ]
        )
        figures.append(source.metrics())
    return records, figures, source.state_dict()


@pytest.mark.parametrize("size", [2, 4])
def test_two_ranks_play_what_one_plays(size):
    """The same problems, texts, advantages and curriculum, dealt out round robin."""
    records, figures, state = played(open_source())
    parts = Ranks(size).run(played)
    for take, wanted in enumerate(records):
        groups = [[part[0][take][at : at + SIZE] for at in range(0, GROUPS // size * SIZE, SIZE)] for part in parts]
        dealt = [row for turn in zip(*groups) for group in turn for row in group]
        assert dealt == wanted
    for part in parts:
        assert part[2] == state
        for ours, one in zip(part[1], figures):
            assert ours == pytest.approx(one, abs=1e-12)
    assert state["problems_drawn"] == 6 * GROUPS
    assert any(task["level"] > 0 for task in state["curriculum"].values())  # the curriculum moved
    assert len({row[2] for take in records for row in take}) > 1  # and with it the levels played
    assert any(row[6] > 0 for take in records for row in take)


def equal_batches(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_a_resumed_source_goes_on_exactly():
    through, first = open_source(), open_source()
    for step in range(4):
        through.take(2, step=step)
        first.take(2, step=step)
    resumed = open_source()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    fresh = open_source()
    for step in range(4, 8):
        wanted = through.take(2, step=step)
        equal_batches(resumed.take(2, step=step), wanted)
        assert resumed.metrics() == through.metrics()
        assert not torch.equal(fresh.take(2, step=step)[0].tokens, wanted[0].tokens)
    assert resumed.state_dict() == through.state_dict()


def test_share_scales_the_groups_and_keeps_at_least_one_a_rank():
    source = open_source()
    for share, groups in ((1.0, 8), (0.5, 4), (0.25, 2), (0.01, 1), (0.9, 7)):
        before = source.problems_drawn
        batches = source.take(3, share=share)
        assert len(batches) == 3
        assert source.metrics()["episodes"] == groups * SIZE
        assert source.problems_drawn - before == groups
    small = Ranks(2).run(lambda source, rank: [source.take(1, share=0.01), source.problems_drawn][1])
    assert small == [2, 2]


def test_batches_hold_the_episodes_figures():
    source = open_source()
    batches = source.take(3, step=9)
    trajectories = [t for e in source.last_episodes for t in e.trajectories]
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == sum(int(t.action_mask.sum()) for t in trajectories)
    assert source.metrics()["tokens"] == sum(int(t.action_mask.sum()) for t in trajectories)
    assert {t.policy_step for t in trajectories} == {9}
    assert {batch.objective for batch in batches} == {"play"}
    assert all(batch.ref_logprobs is None for batch in batches)
    for peers in {t.peers for t in trajectories}:
        group = [t for t in trajectories if t.peers == peers]
        assert len(group) == SIZE
        assert sum(t.advantage for t in group) == pytest.approx(0, abs=1e-9)
    figures = source.metrics()
    assert 0 < figures["signal"] <= 1
    assert figures["reward"] == pytest.approx(sum(t.reward for t in trajectories) / len(trajectories))
    assert {"success", "length", "truncated", "level/sort", "success/reverse"} <= set(figures)


def test_a_kl_term_gets_the_references_logprobs():
    asked = []

    def reference(batch):
        asked.append(batch)
        return torch.full(batch.tokens.shape, -2.5)

    batches = open_source(reference=reference, options={"kl_coefficient": 0.1}).take(2)
    assert len(asked) == 2
    equal_batches([replace(batch, ref_logprobs=None) for batch in batches], asked)
    assert all((batch.ref_logprobs == -2.5).all() for batch in batches)


def test_another_seed_or_objective_plays_other_problems():
    one, other = open_source(), open_source()
    other.context = replace(other.context, objective="elsewhere")
    one.take(1)
    other.take(1)
    assert [e.text for e in one.last_episodes] != [e.text for e in other.last_episodes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, r"tasks: empty; known tasks: .*sort"),
        ({"tasks": [{"task": {"name": "sort"}}] * 2}, r"tasks\.1: task 'sort' is given twice"),
        (
            {"tasks": [{"task": {"name": "sort"}, "curriculum": {"target_level": 99}}]},
            r"target_level=99: .* levels 0\.\.",
        ),
        ({"tasks": [{"task": {"name": "srot"}}]}, r"tasks\.0\.task\.name: unknown task 'srot'; did you mean 'sort'"),
        ({"selfplay": {"name": "slove"}}, r"source\.selfplay\.name: unknown selfplay 'slove'; did you mean 'solve'"),
        ({"group": 3}, r"source\.group: unknown key; did you mean 'groups'"),
    ],
)
def test_options_that_do_not_fit_name_their_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        open_source(**changes)


def test_groups_must_divide_among_the_ranks():
    with pytest.raises(ConfigError, match=r"source\.groups=8 is not divisible by the data-parallel size 3"):
        open_source(0, 3)


HARD = {"tasks": [{"task": {"name": "reverse"}, "curriculum": {"start_level": 6, "target_level": 9}}]}


def test_a_start_level_out_of_reach_is_lowered_before_the_first_step():
    source = open_source(**HARD)
    lines = source.prepare()
    assert "reverse level 6: chance alone solves one in" in lines[0]
    assert f"this run plays {100 * GROUPS * SIZE:,}" in lines[0]
    assert lines[1].startswith("starts lower, at reverse level 2: chance alone solves one in 2.4e+03 episodes")
    assert source.curriculum.level("reverse") == 2
    assert source.problems_drawn == 0, "the rehearsal is thrown away"
    again = open_source(**HARD)
    again.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert again.curriculum.level("reverse") == 2


def test_a_start_level_out_of_reach_is_refused_or_trusted_on_request():
    with pytest.raises(ConfigError, match=r"play\.source\.tasks\.0: reverse level 6: .*unreachable=ignore"):
        open_source(**HARD, unreachable="refuse").prepare()
    trusting = open_source(**HARD, unreachable="ignore")
    assert len(trusting.prepare()) == 1
    assert trusting.curriculum.level("reverse") == 6
    floor = {"tasks": [{**HARD["tasks"][0], "curriculum": {"start_level": 6, "target_level": 9, "floor_level": 5}}]}
    with pytest.raises(ConfigError, match=r"reverse level 5: chance alone"):
        open_source(**floor).prepare()


def test_a_task_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"play\.source\.tasks\.0\.task: 'memory' is of the kind 'environment'"):
        open_source(tasks=[{"task": {"name": "memory"}}])


def test_environments_through_a_window_fill_batches():
    source = open_source(
        tasks=[{"task": {"name": "memory"}, "curriculum": {"start_level": 5, "target_level": 5}}],
        selfplay={"name": "converse", "group_size": SIZE, "window": 24},
    )
    batches = source.take(3)
    chosen = sum(int(t.action_mask.sum()) for e in source.last_episodes for t in e.trajectories)
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == chosen > 0
    assert max(int(batch.positions.max()) for batch in batches) < 24
    assert source.metrics()["level/memory"] == 5


def test_silent_episodes_can_be_left_out():
    everything, loud = open_source(algorithm="reinforce"), open_source(algorithm="reinforce", skip_silent=True)
    all_tokens = sum(int(batch.loss_mask.sum()) for batch in everything.take(2))
    batches = loud.take(2)
    with_signal = [t for e in loud.last_episodes for t in e.trajectories if t.advantage != 0]
    assert 0 < sum(int(batch.loss_mask.sum()) for batch in batches) < all_tokens
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == sum(int(t.action_mask.sum()) for t in with_signal)
    assert all((batch.advantages[batch.loss_mask] != 0).all() for batch in batches)
    assert loud.metrics() == everything.metrics(), "what was played is counted all the same"
    with pytest.raises(ConfigError, match=r"skip_silent: the algorithm's entropy or KL term"):
        open_source(skip_silent=True, options={"entropy_bonus": 0.01}.items())


def test_tensor_ranks_learn_from_the_first_one_s_verdicts():
    """A verifier that timed out on one rank only must not give the ranks different gradients."""
    first = open_source()
    verdicts = []
    first.context = replace(first.context, agree=lambda value: verdicts.append(value) or value)
    first.take(1)
    second = open_source(agree=lambda value: verdicts[0])
    second.rubric = Rubric.from_config([{"name": "correct", "weight": 0.0}])  # this rank saw nothing right
    second.take(1)
    expected = [t.advantage for e in first.last_episodes for t in e.trajectories]
    assert [t.advantage for e in second.last_episodes for t in e.trajectories] == expected
    assert any(expected)
    assert second.curriculum.state_dict() == first.curriculum.state_dict()
