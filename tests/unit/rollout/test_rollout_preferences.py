"""Preference pairs of a run: which attempts, which texts, and one file whatever the ranks and however often resumed."""

import json

from helpers.rollouts import episodes_on_ranks, open_episodes, source_context
from helpers.tokenizer import CharacterTokenizer

from rlpt.rollout.preferences import FILE, preference_pairs
from rlpt.template import ANSWER, PROMPT

TOKENIZER = CharacterTokenizer()


def read(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def source_in(folder):
    return open_episodes(source_context(directory=folder), export_preferences=True)


def test_the_best_and_the_worst_attempt_of_each_problem_whose_rewards_differ(tmp_path):
    source = source_in(tmp_path)
    source.take(1, step=3)
    rows = read(tmp_path)
    keys = {one.trajectories[0].peers for one in source.last_episodes}
    groups = [[one for one in source.last_episodes if one.trajectories[0].peers == key] for key in keys]
    expected = []
    for episodes in groups:
        rewards = [one.trajectories[0].reward for one in episodes]
        texts = [TOKENIZER.decode(one.trajectories[0].token_ids.tolist()) for one in episodes]
        if max(rewards) > min(rewards):
            best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
            expected.append((episodes[0].problem.seed, texts[best], texts[worst], rewards[best], rewards[worst]))
    told = []
    for row in rows:
        texts = [row["prompt"] + row[key] for key in ("chosen", "rejected")]
        told.append((row["seed"], *texts, row["chosen_reward"], row["rejected_reward"]))
    assert sorted(told) == sorted(expected) != []
    assert 0 < len(rows) < len(groups), "some have equal rewards"
    assert all(row["prompt"].startswith(PROMPT) and row["prompt"].endswith(ANSWER) for row in rows)
    assert {(row["step"], row["objective"]) for row in rows} == {(3, "play")}


def test_a_resumed_run_has_every_pair_once(tmp_path):
    straight = tmp_path / "straight"
    source = source_in(straight)
    for step in range(4):
        source.take(1, step=step)
    again = tmp_path / "again"
    source = source_in(again)
    for step in range(3):
        source.take(1, step=step)
        if step == 0:
            state = json.loads(json.dumps(source.state_dict()))
    with open(again / FILE, "a") as file:
        file.write('{"objective": "other", "step": 9}\n{"torn": ')
    source = source_in(again)
    source.load_state_dict(state)
    for step in range(1, 4):
        source.take(1, step=step)
    rows = read(again)
    assert [row for row in rows if row["objective"] == "play"] == read(straight)
    assert [row["objective"] for row in rows].count("other") == 1, "another objective's rows are its own"


def test_any_number_of_ranks_writes_the_same_file_once(tmp_path):
    source_in(tmp_path / "1").take(1, step=0)

    def work(source, rank):
        source.preferences.context = source.context.__class__(
            **{**source.context.__dict__, "directory": tmp_path / "2" if rank == 0 else None}
        )
        source.take(1, step=0)

    episodes_on_ranks(2, work, export_preferences=True)
    assert read(tmp_path / "2") == read(tmp_path / "1")


def test_without_episodes_there_are_no_pairs():
    assert preference_pairs([], TOKENIZER) == []
