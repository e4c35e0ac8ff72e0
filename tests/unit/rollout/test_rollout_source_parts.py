"""The episode source where plays leave problems unfinished: any number of ranks, exact resume, plays without an end."""

import json
from collections import Counter

import pytest
from helpers.rollouts import assert_equal_batches, episodes_on_ranks, open_episodes, source_context

from rlpt import registry
from rlpt.errors import ConfigError

GROUPS, GROUP_SIZE = 4, 3
CURRICULUM = {"start_level": 1, "target_level": 3, "min_count": 6, "promote_at": 0.02, "demote_at": 0.0}
PARTS = {
    "groups": GROUPS,
    "selfplay": {"name": "converse", "group_size": GROUP_SIZE, "calls_a_play": 2, "max_tokens": 64},
    "tasks": [
        {"task": {"name": "grid_world"}, "curriculum": CURRICULUM},
        {"task": {"name": "memory"}, "curriculum": CURRICULUM},
    ],
    "rubric": [{"name": "correct", "weight": 1.0}, {"name": "novelty", "weight": 0.3, "ngram": 2}],
}


def opened(**changes):
    return open_episodes(None, **PARTS | changes)


def told(episode):
    return episode.problem.task, episode.problem.seed, episode.problem.level, episode.text


def played(source, rank=0, takes=8, first=0):
    """[finished episodes of each take as comparable records], figures of each take, final state."""
    records, figures = [], []
    for step in range(first, first + takes):
        source.take(2, step=step)
        records.append(
            Counter(
                (
                    *told(e),
                    t.peers,
                    t.reward,
                    t.advantage,
                    t.policy_step,
                    t.policy_steps is None or tuple(t.policy_steps),
                )
                for e in source.last_episodes
                for t in e.trajectories
            )
        )
        figures.append(source.metrics())
    return records, figures, source.state_dict()


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("staleness", [0, 1])
def test_ranks_play_in_parts_what_one_plays(size, staleness):
    """The same episodes in the same plays, the same figures, texts, curriculum, and problems that wait."""
    records, figures, state = played(opened(staleness=staleness))
    parts = episodes_on_ranks(size, played, **PARTS, staleness=staleness)
    for take, wanted in enumerate(records):
        assert sum((part[0][take] for part in parts), Counter()) == wanted
    for part in parts:
        assert json.loads(json.dumps(part[2])) == json.loads(json.dumps(state))
        for ours, one in zip(part[1], figures):
            assert ours == pytest.approx(one, abs=1e-12)
    assert state["memory"]["problems"], "some still wait"
    assert state["problems_drawn"] == (8 + staleness) * GROUPS
    assert len({task["level"] for task in state["curriculum"].values()} - {1}) > 0, "the curriculum moved"
    steps = {row[-1] for record in records for row in record}
    assert any(isinstance(one, tuple) and len(set(one)) > 2 for one in steps), "from the weights of several steps"


@pytest.mark.parametrize("stop", [1, 3, 6])
@pytest.mark.parametrize("changes", [{}, {"staleness": 1, "minibatches": 2}], ids=["plain", "stale"])
def test_a_source_resumed_in_the_middle_of_episodes_goes_on_exactly(changes, stop):
    through, first, resumed = opened(**changes), opened(**changes), opened(**changes)
    for step in range(stop):
        through.take(2, step=step)
        first.take(2, step=step)
    state = first.state_dict()
    assert any(turns for problem in state["memory"]["problems"] for turns in problem["samples"])
    resumed.load_state_dict(json.loads(json.dumps(state)))
    for step in range(stop, stop + 6):
        assert_equal_batches(resumed.take(2, step=step), through.take(2, step=step))
        assert resumed.metrics() == through.metrics()
    assert json.loads(json.dumps(resumed.state_dict())) == json.loads(json.dumps(through.state_dict()))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_what_waits_goes_on_at_another_number_of_ranks(before, after):
    (first, *_) = episodes_on_ranks(before, lambda source, rank: played(source, takes=3), **PARTS)
    state = json.loads(json.dumps(first[2]))

    def go_on(source, rank):
        source.load_state_dict(state)
        return played(source, takes=4, first=3)

    records, _, end = go_on(opened(), 0)
    parts = episodes_on_ranks(after, go_on, **PARTS)
    for take, wanted in enumerate(records):
        assert sum((part[0][take] for part in parts), Counter()) == wanted
    for part in parts:
        assert part[2]["memory"] == end["memory"]
        assert part[2]["curriculum"] == end["curriculum"]


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_a_step_whose_plays_end_no_episode_has_masked_rows_and_no_means(algorithm):
    given = {"name": algorithm} | ({"kl_coefficient": 0.0} if algorithm == "ppo" else {})
    changes = {"groups": 2, "selfplay": PARTS["selfplay"] | {"calls_a_play": 1}}
    context = source_context(algorithm=registry.create("algorithm", given))
    source = open_episodes(context, **PARTS | changes, score_silent=True)
    (batch,) = source.take(1, step=0)
    assert batch.tokens.shape == (1, context.row_multiple)
    assert not batch.loss_mask.any()
    assert source.last_episodes == []
    figures = source.metrics()
    wanted = {"episodes": 0, "tokens": 0, "prompt_tokens": 0, "age": 0, "unfinished": 2}
    assert figures.items() >= wanted.items()
    assert not {"reward", "signal", "success", "length", "cut/tokens"} & figures.keys()
    assert all(value == value for value in figures.values())
    for step in range(1, 8):
        (batch,) = source.take(1, step=step)
    figures = source.metrics()
    assert figures["episodes"] > 0
    assert figures["age"] > 0
    assert {"reward", "signal", "success", "length", "cut/tokens"} <= figures.keys()
    assert len(set(batch.policy_steps[batch.loss_mask].tolist())) > 1
    mean = 7 - batch.policy_steps[batch.loss_mask].double().mean()
    assert figures["age"] == pytest.approx(float(mean))


def test_the_source_s_clock_is_the_first_tensor_rank_s():
    """A rank that is told another time cuts the same episodes as the one whose time it is."""
    form = {"name": "converse", "group_size": GROUP_SIZE, "max_seconds": 5.0}
    seconds = iter(range(0, 10_000, 2))
    context = source_context(agree=lambda value: next(seconds) if isinstance(value, float) else value)
    source = open_episodes(context, **PARTS | {"selfplay": form})
    source.take(1)
    assert 0 < source.metrics()["cut/time"] <= 1
    alone = opened(selfplay=form | {"max_seconds": 1000.0})
    alone.take(1)
    assert alone.metrics()["cut/time"] == 0


def test_refill_and_plays_that_end_early_exclude_each_other():
    with pytest.raises(ConfigError, match=r"play\.source\.refill: a play that leaves problems unfinished"):
        opened(refill=1, skip_silent=True)


def test_the_rehearsal_before_a_run_leaves_nothing_waiting():
    source = opened(unreachable="ignore")
    source.prepare()
    assert source.state_dict()["memory"] == {"problems": []}
