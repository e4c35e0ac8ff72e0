"""The episode source: what it plays does not depend on the ranks, and scales with its share."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from helpers.rollouts import GROUP_SIZE, GROUPS, Silent, episodes_on_ranks, open_episodes, source_context
from helpers.shards import SENTENCES, write_shards, write_tokenizer

from rlpt.algorithms.reinforce import Reinforce
from rlpt.errors import ConfigError
from rlpt.rewards.base import Rubric


def trajectories_of(source):
    return [one for episode in source.last_episodes for one in episode.trajectories]


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


def dealt(parts):
    """Records of all ranks in problem order."""
    groups = [[part[at : at + GROUP_SIZE] for at in range(0, len(part), GROUP_SIZE)] for part in parts]
    return [row for turn in zip(*groups, strict=True) for group in turn for row in group]


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_play_what_one_plays(size):
    """The same problems, texts, advantages and curriculum, dealt out round robin."""
    records, figures, state = played(open_episodes())
    parts = episodes_on_ranks(size, played)
    for take, wanted in enumerate(records):
        assert dealt([part[0][take] for part in parts]) == wanted
    for part in parts:
        assert part[2] == state
        for ours, one in zip(part[1], figures):
            assert ours == pytest.approx(one, abs=1e-12)
    assert state["problems_drawn"] == 6 * GROUPS
    assert any(task["level"] > 0 for task in state["curriculum"].values())  # the curriculum moved
    assert len({row[2] for take in records for row in take}) > 1  # and with it the levels played
    assert any(row[6] > 0 for take in records for row in take)


def test_ranks_go_on_with_what_one_left_at_any_number():
    """7 problems were drawn: no multiple of the ranks that go on."""
    one = open_episodes()
    one.take(1, share=0.9)
    state = json.loads(json.dumps(one.state_dict()))
    assert state["problems_drawn"] == 7

    def go_on(source, rank):
        source.load_state_dict(state)
        return played(source, takes=3)

    records, _, after = played(one, takes=3)
    parts = episodes_on_ranks(2, go_on)
    for take, wanted in enumerate(records):
        assert dealt([part[0][take] for part in parts]) == wanted
    assert [part[2] for part in parts] == [after] * 2


def test_share_scales_the_groups_and_keeps_at_least_one_a_rank():
    source = open_episodes()
    for share, groups in ((1.0, 8), (0.5, 4), (0.25, 2), (0.01, 1), (0.9, 7)):
        before = source.problems_drawn
        batches = source.take(3, share=share)
        assert len(batches) == 3
        assert source.metrics()["episodes"] == groups * GROUP_SIZE
        assert source.problems_drawn - before == groups
    small = episodes_on_ranks(2, lambda source, rank: [source.take(1, share=0.01), source.problems_drawn][1])
    assert small == [2, 2]


def test_batches_hold_the_episodes_figures():
    source = open_episodes(score_silent=True)
    batches = source.take(3, step=9)
    trajectories = trajectories_of(source)
    actions = sum(int(one.action_mask.sum()) for one in trajectories)
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == actions
    assert source.metrics()["tokens"] == actions
    assert {one.policy_step for one in trajectories} == {9}
    assert {(batch.objective, batch.head, batch.turn) for batch in batches} == {("play", "", 0)}
    assert all(batch.ref_logprobs is batch.values is batch.returns is None for batch in batches)
    assert sum(float(batch.sequence_share.sum()) for batch in batches) == pytest.approx(len(trajectories))
    assert all((batch.policy_steps[batch.loss_mask] == 9).all() for batch in batches)
    rewards = {round(one.reward, 4) for one in trajectories}
    assert {round(float(r), 4) for batch in batches for r in batch.episode_rewards[batch.loss_mask]} == rewards
    assert len(rewards) > 2
    for peers in {one.peers for one in trajectories}:
        group = [one for one in trajectories if one.peers == peers]
        assert len(group) == GROUP_SIZE
        assert sum(one.advantage for one in group) == pytest.approx(0, abs=1e-9)
    figures = source.metrics()
    assert 0 < figures["signal"] <= 1
    assert figures["reward"] == pytest.approx(sum(one.reward for one in trajectories) / len(trajectories))
    assert {"success", "length", "truncated", "level/sort", "success/reverse"} <= set(figures)


def test_another_seed_or_objective_plays_other_problems():
    one, other, elsewhere = (
        open_episodes(source_context(**changes)) for changes in ({}, {"seed": 6}, {"objective": "elsewhere"})
    )
    for source in (one, other, elsewhere):
        source.take(1)
    assert len({tuple(episode.text for episode in source.last_episodes) for source in (one, other, elsewhere)}) == 3


NOTHING = {"blend": [{"path": "nowhere"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "play.source: give either tasks or passages"),
        ({"passages": NOTHING}, "play.source: give either tasks or passages"),
        ({"tasks": [], "passages": NOTHING}, r"selfplay\.name: 'solve' does not play passages; use predict or think"),
        ({"selfplay": {"name": "slove"}}, r"source\.selfplay\.name: unknown selfplay 'slove'; did you mean 'solve'"),
        ({"group": 3}, r"source\.group: unknown key; did you mean 'groups'"),
        ({"groups": 0}, "groups=0: must be at least 1"),
        ({"minibatches": 0}, "minibatches=0"),
        ({"staleness": -1}, "staleness=-1: must be at least 0"),
        ({"refill": 2}, "refill: fills up what skip_silent leaves out"),
        ({"rubric": [{"name": "corect"}]}, r"source\.rubric\.0\.name: unknown reward 'corect'; did you mean 'correct'"),
    ],
)
def test_options_that_do_not_fit_name_their_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        open_episodes(**changes)


def test_groups_must_divide_among_the_ranks():
    with pytest.raises(ConfigError, match=r"source\.groups=8 is not divisible by the data-parallel size 3"):
        open_episodes(source_context(data_size=3))


HARD = {"tasks": [{"task": {"name": "reverse"}, "curriculum": {"start_level": 6, "target_level": 9}}]}


def test_before_the_first_step_a_start_level_is_lowered_and_the_rehearsal_thrown_away():
    source = open_episodes(**HARD)
    lines = source.prepare()
    assert f"this run plays {100 * GROUPS * GROUP_SIZE:,}" in lines[0]
    assert "a second" in lines[0]
    assert source.curriculum.level("reverse") == 2
    assert (source.problems_drawn, source.turns, source.last_episodes) == (0, 0, [])
    again = open_episodes(**HARD)
    again.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert again.curriculum.level("reverse") == 2
    with pytest.raises(ConfigError, match=r"play\.source\.tasks\.0: reverse level 6: .*unreachable=ignore"):
        open_episodes(**HARD, unreachable="refuse").prepare()


def test_a_play_that_serves_several_steps_is_counted_once():
    lines = open_episodes(inner_epochs=2, minibatches=5, unreachable="ignore").prepare()
    assert f"this run plays {100 / 10 * GROUPS * GROUP_SIZE * 2 / 3:,.0f} at" in lines[0]


def test_environments_through_a_window_fill_batches():
    source = open_episodes(
        tasks=[{"task": {"name": "memory"}, "curriculum": {"start_level": 5, "target_level": 5}}],
        selfplay={"name": "converse", "group_size": GROUP_SIZE, "window": 24},
    )
    batches = source.take(3)
    chosen = sum(int(one.action_mask.sum()) for one in trajectories_of(source))
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == chosen > 0
    assert max(int(batch.positions.max()) for batch in batches) < 24
    assert source.metrics()["level/memory"] == 5


def test_passages_are_played_like_tasks(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    documents = [[*tokenizer.encode(text), tokenizer.eos_id] for text in SENTENCES]
    write_shards(tmp_path / "data", tokenizer, {"text": documents})
    options = {
        "tasks": [],
        "passages": {"blend": [{"path": tmp_path / "data" / "text"}], "context": 8, "positions": "entropy"},
        "selfplay": {"name": "predict", "group_size": 3, "characters": "0123456789", "max_thought": 2},
    }
    source = open_episodes(source_context(tokenizer=tokenizer), **options)
    assert (source.prepare(), source.curriculum) == ([], None)
    texts = [[*document, *following] for document, following in pairwise(documents)]
    for step in range(2):
        source.take(2, step=step)
        assert len(source.last_episodes) == 3 * GROUPS
        for episode in source.last_episodes:
            seen, (one,) = list(episode.problem.meta["context"]), episode.trajectories
            assert one.token_ids[: len(seen)].tolist() == seen
            assert any(seen == text[i : i + len(seen)] for text in texts for i in range(len(text)))
    figures = source.metrics()
    assert figures["scored_tokens"] == GROUPS * 64, "a row of the corpus for each problem's entropies"
    assert {"success", "reward", "signal"} <= set(figures)
    again = open_episodes(source_context(tokenizer=tokenizer), **options)
    again.load_state_dict(json.loads(json.dumps(source.state_dict())))
    again.take(2, step=2)
    source.take(2, step=2)
    assert [e.text for e in again.last_episodes] == [e.text for e in source.last_episodes]


def test_silent_episodes_are_not_computed_and_count_all_the_same():
    everything, loud = open_episodes(score_silent=True), open_episodes()
    whole, part = everything.take(2), loud.take(2)
    for algorithm in (Reinforce(), Reinforce(normalizer="sequence")):
        counts = [sum(map(algorithm.count, batches)) for batches in (whole, part)]
        assert counts[0] == pytest.approx(counts[1], rel=1e-6)
    assert sum(batch.silent_tokens for batch in part) > 0 == sum(batch.silent_tokens for batch in whole)
    assert 0 < sum(int(batch.loss_mask.sum()) for batch in part) < sum(int(batch.loss_mask.sum()) for batch in whole)
    assert all((batch.advantages[batch.loss_mask] != 0).all() for batch in part)
    assert loud.metrics() == everything.metrics()


def test_silent_episodes_are_computed_where_something_is_made_of_them():
    """An entropy bonus acts on them; a bilevel run's gain is estimated on all."""
    for context in (source_context(algorithm=Reinforce(entropy_bonus=0.01)), source_context(scores_silent=True)):
        batches = open_episodes(context).take(2)
        assert any((batch.advantages[batch.loss_mask] == 0).any() for batch in batches)
        assert not any(batch.silent_tokens for batch in batches)


def test_prompts_are_computed_once_a_group_or_not():
    shared, apart = open_episodes(), open_episodes(share_prompt=False)
    batches = [source.take(2) for source in (shared, apart)]
    positions = [sum(int((batch.segments >= 0).sum()) for batch in each) for each in batches]
    assert positions[0] < 0.8 * positions[1]
    assert all(batch.parents is not None for batch in batches[0])
    assert all(batch.parents is None for batch in batches[1])


def test_silent_episodes_can_be_left_out():
    everything, loud = open_episodes(score_silent=True), open_episodes(skip_silent=True)
    all_tokens = sum(int(batch.loss_mask.sum()) for batch in everything.take(2))
    batches = loud.take(2)
    with_signal = [one for one in trajectories_of(loud) if one.advantage != 0]
    assert 0 < sum(int(batch.loss_mask.sum()) for batch in batches) < all_tokens
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == sum(int(t.action_mask.sum()) for t in with_signal)
    assert all((batch.advantages[batch.loss_mask] != 0).all() for batch in batches)
    assert loud.metrics() == everything.metrics(), "what was played is counted all the same"
    bonus = source_context(algorithm=Reinforce(entropy_bonus=0.01))
    with pytest.raises(ConfigError, match=r"skip_silent: the algorithm's entropy, KL or value term"):
        open_episodes(bonus, skip_silent=True)


def test_a_play_without_any_signal_gives_masked_rows():
    context = source_context(algorithm=Silent())
    source = open_episodes(context, skip_silent=True)
    source.rubric = Rubric.from_config([{"name": "correct", "weight": 0.0}])
    batches = source.take(3)
    assert [batch.tokens.shape for batch in batches] == [(1, context.row_multiple)] * 3
    assert not any(batch.loss_mask.any() for batch in batches)
    assert source.metrics()["signal"] == 0


def test_tensor_ranks_learn_from_the_first_one_s_verdicts():
    """A verifier that timed out on one rank only must not give the ranks different gradients."""
    first = open_episodes()
    verdicts = []
    first.context = replace(first.context, agree=lambda value: verdicts.append(value) or value)
    first.take(1)
    told = iter(verdicts)
    second = open_episodes(source_context(agree=lambda value: next(told)))
    second.rubric = Rubric.from_config([{"name": "correct", "weight": 0.0}])  # this rank saw nothing right
    second.take(1)
    expected = [one.advantage for one in trajectories_of(first)]
    assert [one.advantage for one in trajectories_of(second)] == expected
    assert any(expected)
    assert second.curriculum.state_dict() == first.curriculum.state_dict()
