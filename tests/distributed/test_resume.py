"""Killed and started again, a run is the run without a break, bit for bit; at another layout, to rounding."""

import json
import math
import shutil
import time

import pytest
from helpers.launches import start
from helpers.runs import INTERVAL, STEPS, metric_rows, steps

RESUMED = 2 * INTERVAL  # the checkpoint that the other layouts start from
BROKEN_WANDB = "raise ImportError('this installation of wandb is broken')\n"


def kill_after(launch, run, step):
    """SIGKILL to everything as soon as a row of at least `step` is on disk."""
    while not any(row["step"] >= step for row in whole_rows(run)):
        assert launch.process.poll() is None, launch.output
        time.sleep(0.005)
    launch.kill()
    assert launch.left_behind() == []


def whole_rows(run):
    try:
        return metric_rows(run)
    except ValueError:  # a line that is being written
        return []


@pytest.fixture(scope="session")
def broken(config, unbroken):
    """The same run, killed before its first checkpoint, killed again after it, then run to its end."""
    run = config.parent / "broken"
    arguments = ["-m", "rlpt", "train", config, f"run_dir={run}"]
    seen = {}
    for attempt, step in enumerate((0, INTERVAL + 2)):
        kill_after(start(arguments, config.with_name(f"killed-{attempt}.log")), run, step)
        seen[attempt] = {
            "last_step": max(row["step"] for row in whole_rows(run)),
            "checkpoints": sorted(path.name for path in run.glob("checkpoints/step-????????")),
            "wandb_id": (run / "wandb_id").read_text(),
        }
    launch = start(arguments, config.with_name("resumed.log"))
    assert launch.finish() == 0, launch.output
    assert launch.left_behind() == []
    return run, seen, launch.output


def test_the_run_has_what_the_proof_needs(unbroken):
    """Losses that move, episodes with signal, a gate, a curriculum that climbs, references that differ, plays that are
    learned from twice or late, a head that has learned, baselines, turns, copies of every kind."""
    rows = steps(metric_rows(unbroken))
    assert list(rows) == list(range(1, STEPS + 1))
    assert len({row["text/fingerprint"] for row in rows.values()}) == STEPS
    prints = [rows[step]["play/fingerprint"] for step in rows]
    assert prints[::2] == prints[1::2]
    assert len(set(prints)) == STEPS // 2
    assert len({row["values/fingerprint"] for row in rows.values()}) == STEPS
    plays = [step for step, row in rows.items() if row["play/episodes"]]
    assert plays == list(range(1, STEPS + 1, 2))
    assert len({rows[step]["play/reward"] for step in plays}) > 3
    assert max(rows[step]["play/signal"] for step in plays) > 0
    assert max(row["play/largest_ratio"] for row in rows.values()) > 1.05
    assert rows[STEPS]["text/loss"] < rows[1]["text/loss"] - 0.05
    assert rows[STEPS]["play/reference_kl"] > 0
    assert rows[plays[-1]]["play/level/sort"] + rows[plays[-1]]["play/level/reverse"] > 0
    assert abs(rows[STEPS]["values/value"]) > 0
    assert [step for step, row in rows.items() if "roles/loss" in row] == list(range(2, STEPS + 1, 2))
    assert [rows[step]["roles/coefficient"] for step in (2, 6, 10)] == pytest.approx([0.3, 0.7, 1.0])
    assert "gradient_cosine/text-play" in rows[4]
    state = json.loads((unbroken / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
    assert any(state["sources"]["roles"]["baselines"].values())
    assert len(state["sources"]["play"]["replay"]["waiting"]) == 1
    league = state["sources"]["games"]["memory"]
    assert {name.partition("@")[0] for name in league["records"]} == {"past", "bot:0"}
    assert league["rating"] != 1000
    (waiting,) = state["sources"]["games"]["replay"]["waiting"]
    held = [one["candidates"] for group in waiting["groups"] for one in group]
    assert any(held)
    assert not all(held), "a share of the games is played without a search"
    assert rows[STEPS]["games/target_kl"] > 0
    buffer = state["sources"]["proposals"]["memory"]["triplets"]
    assert any(one["step"] > INTERVAL for kept in buffer.values() for one in kept)
    assert any(one["parents"] for kept in buffer.values() for one in kept)
    assert state["snapshots"] == ["average", "lagged", "past@12", "past@9"]


def test_what_each_objective_cost_is_in_the_summary_and_adds_up(unbroken):
    accounts = json.loads((unbroken / "summary.json").read_text())["accounts"]
    rows = steps(metric_rows(unbroken))
    assert accounts.keys() == {"text", "play", "values", "roles", "games", "proposals"}
    for name, account in accounts.items():
        mine = [row for row in rows.values() if f"{name}/loss" in row]
        for key, figure in {"loss": "loss_tokens", "rollout": "tokens", "scored": "scored_tokens"}.items():
            assert account[f"{key}_tokens"] == sum(row.get(f"{name}/{figure}", 0) for row in mine)
        assert account["update_tokens"] >= account["loss_tokens"] > 0
        assert account["flops"] == mine[-1][f"{name}/flops"] > 6 * 15_360 * account["update_tokens"]
    assert accounts["text"]["update_tokens"] == STEPS * 2 * 4 * 48
    assert accounts["text"]["rollout_tokens"] == 0
    assert accounts["play"]["rollout_tokens"] + accounts["values"]["rollout_tokens"] > 0
    assert accounts["values"]["scored_tokens"] > accounts["values"]["rollout_tokens"]  # a reference and a head


def test_killed_and_resumed_is_bit_identical(unbroken, broken):
    run, seen, _ = broken
    assert seen[0]["checkpoints"] == []
    assert seen[0]["last_step"] < INTERVAL
    assert seen[1]["checkpoints"][0] == f"step-{INTERVAL:08d}"
    assert INTERVAL + 2 <= seen[1]["last_step"] < STEPS
    assert metric_rows(run) == metric_rows(unbroken)
    assert (run / "evaluation.json").read_bytes() == (unbroken / "evaluation.json").read_bytes()
    assert (run / "play_episodes.jsonl").read_bytes() == (unbroken / "play_episodes.jsonl").read_bytes()


def test_weights_optimizer_and_state_are_bit_identical_too(unbroken, broken):
    """The files of the last checkpoint, timings and identities left out."""
    states = []
    for run in (unbroken, broken[0]):
        state = json.loads((run / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
        assert state.pop("seconds") > 0
        states.append({key: value for key, value in state.items() if key != "wandb_id"})
    assert states[0] == states[1]
    ours, theirs = (
        {path.name: path.read_bytes() for path in (run / "checkpoints" / f"step-{STEPS:08d}" / "weights").glob("__*")}
        for run in (unbroken, broken[0])
    )
    assert sum(map(len, ours.values())) > 100_000
    assert ours == theirs


def test_the_wandb_run_stays_the_same(broken):
    run, seen, _ = broken
    ids = {seen[0]["wandb_id"], seen[1]["wandb_id"], (run / "wandb_id").read_text()}
    assert len(ids) == 1
    folders = list(run.glob("wandb/offline-run-*"))
    assert len(folders) == 3
    assert all(folder.name.endswith(ids.copy().pop().strip()) for folder in folders)


def test_a_resume_says_so(broken):
    assert "resumed from" in broken[2]
    assert f"at step {INTERVAL}" in broken[2]


@pytest.fixture(scope="session")
def one_rank(config, unbroken):
    """Resumed at one rank, with the newest checkpoint damaged and a broken wandb on the path."""
    run = shutil.copytree(unbroken, config.parent / "one_rank")
    weights = max(
        (run / "checkpoints" / f"step-{STEPS:08d}" / "weights").glob("*.distcp"), key=lambda p: p.stat().st_size
    )
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    package = config.parent / "broken_wandb" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BROKEN_WANDB)
    launch = start(
        ["-m", "rlpt", "train", config, f"run_dir={run}", "parallel.tensor=1"],
        config.with_name("one_rank.log"),
        shadow=package.parent,
    )
    assert launch.finish() == 0, launch.output
    return run, launch.output


@pytest.fixture(scope="session")
def two_replicas(config, unbroken):
    """Resumed at two data-parallel ranks from step 10."""
    run = shutil.copytree(unbroken, config.parent / "two_replicas")
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:08d}")
    overrides = [f"run_dir={run}", "parallel.tensor=1", "parallel.data=2", "tracking.wandb=disabled"]
    launch = start(["-m", "rlpt", "train", config, *overrides], config.with_name("two_replicas.log"))
    assert launch.finish() == 0, launch.output
    return run


def differences(run, unbroken, step, keys):
    ours, theirs = (steps(metric_rows(folder))[step] for folder in (run, unbroken))
    return {key: abs(ours[key] - theirs[key]) for key in keys}


EXACT = ("lr", "tokens", "episodes", "rollout_tokens", "text/loss_tokens", "play/loss_tokens", "play/share")
ROUNDED = (
    *("text/loss", "play/loss", "play/entropy", "play/reference_kl", "play/reward", "gradient_norm"),
    *("values/loss", "values/value", "values/reference_kl", "play/largest_ratio"),
)


def check_next_step(run, unbroken):
    step = RESUMED + 1
    assert set(differences(run, unbroken, step, EXACT).values()) == {0}
    found = differences(run, unbroken, step, ROUNDED)
    assert max(found.values()) < 1e-5, found
    # Adam's moments came along: without them the first update, and so the next losses, would be others
    later = {at: differences(run, unbroken, at, ["text/loss"])["text/loss"] for at in range(step, STEPS + 1)}
    assert max(later.values()) < 1e-3, later
    assert all(math.isfinite(value) for value in later.values())


def test_a_checkpoint_of_two_tensor_ranks_goes_on_at_one_rank(unbroken, one_rank):
    run, _ = one_rank
    check_next_step(run, unbroken)
    ours, theirs = (steps(metric_rows(folder)) for folder in (run, unbroken))
    assert all(ours[at]["text/fingerprint"] == theirs[at]["text/fingerprint"] for at in range(RESUMED + 1, STEPS + 1))
    assert ours[RESUMED + 1]["play/fingerprint"] == theirs[RESUMED + 1]["play/fingerprint"]


def test_a_checkpoint_of_two_tensor_ranks_goes_on_at_two_replicas(unbroken, two_replicas):
    check_next_step(two_replicas, unbroken)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(one_rank):
    run, output = one_rank
    assert f"step-{STEPS:08d} is passed over" in output
    assert "sha256 differs" in output
    assert f"resumed from {run / 'checkpoints' / f'step-{RESUMED:08d}'} at step {RESUMED}" in output


def test_a_broken_wandb_is_one_warning(one_rank):
    run, output = one_rank
    assert output.count("wandb failed") == 1
    assert [row["alert"] for row in metric_rows(run) if "alert" in row] == ["wandb failed"]
