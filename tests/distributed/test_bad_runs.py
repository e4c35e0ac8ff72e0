"""Each wrong input ends, on every rank, with one error that names the key or file and the remedy, and never hangs."""

import json
import shutil

import pytest
from helpers.launches import ranks, run
from helpers.runs import INTERVAL, STEPS, metric_rows, steps
from helpers.shards import write_shards, write_tokenizer

from rlpt.__main__ import main
from rlpt.config import check_vocabulary, check_world, load_config
from rlpt.errors import ConfigError
from rlpt.training.checkpoint import find_latest
from rlpt.training.checkpoint_files import fault

OLD = f"step-{2 * INTERVAL:08d}"
QUIET = "tracking.wandb=disabled"


def blend(prefix):
    return f"objectives.text.source.blend=[{{path: {prefix}}}]"


@pytest.fixture(scope="session")
def folders(config, unbroken):
    """Damaged copies of the data and of the run."""
    root, tokenizer = config.parent / "bad", write_tokenizer(config.parent / "bad" / "tokenizer", 420)
    for name in ("missing", "truncated"):
        shutil.copytree(config.parent / "data", root / name)
    (root / "missing" / "train.bin").unlink()
    with open(root / "truncated" / "train.bin", "r+b") as file:
        file.truncate(100)
    write_shards(root / "other", tokenizer, {"train": [[50, 51, 52, tokenizer.eos_id]] * 100})
    own = write_tokenizer(root / "same_tokenizer")
    write_shards(root / "empty", own, {"train": []})
    (root / "nothing").mkdir()
    for name in ("changed", "full_0", "full_1"):
        copy = shutil.copytree(unbroken, root / name)
        shutil.rmtree(copy / "checkpoints" / f"step-{STEPS:08d}")
    return root


# name -> (exit code, what the message must name, overrides); {bad} is the folder of damaged copies
CASES = {
    "unknown task": (2, ["objectives.play.source.tasks.0.task.name", "did you mean 'sort'?"],
                     ["objectives.play.source.tasks.0.task.name=sirt"]),
    "unknown algorithm": (2, ["objectives.play.algorithm.name", "did you mean 'grpo'?"],
                          ["objectives.play.algorithm={name: grop}"]),
    "unknown source": (2, ["objectives.play.source.name", "did you mean 'episodes'?"],
                       ["objectives.play.source={name: episode}"]),
    "unknown reward": (2, ["objectives.play.source.rubric", "did you mean 'correct'?"],
                       ["objectives.play.source.rubric=[{name: corect}]"]),
    "world size": (2, ["world size 2", "2 x 1 x 2", "start 4 ranks"], ["parallel.data=2"]),
    "no rewards": (2, ["objectives.text", "grpo", "needs rewards"], ["objectives.text.algorithm={name: grpo}"]),
    "groups": (2, ["objectives.play.source.groups=3", "data-parallel size 2"],
               ["parallel.tensor=1", "objectives.play.source.groups=3"]),
    "episode too long": (2, ["batch.sequence_length=8"], ["batch.sequence_length=8"]),
    "nothing to resume": (2, ["no checkpoint to resume from", "--resume"], ["run_dir={bad}/fresh", "--resume"]),
    "not afresh": (2, ["has checkpoints", OLD], ["run_dir={bad}/changed", "--no-resume"]),
    "no tokenizer": (3, ["absent", "data_prep"], ["tokenizer={bad}/absent"]),
    "missing shard": (3, ["missing/train.bin: missing", "data_prep"], [blend("{bad}/missing/train")]),
    "unknown shard": (3, ["data/trian", "shards there: train, valid"], [blend("{bad}/../data/trian")]),
    "truncated shard": (3, ["truncated/train.bin", "100 bytes", "data_prep"], [blend("{bad}/truncated/train")]),
    "other tokenizer": (3, ["other/manifest.json", "made with tokenizer", "set `tokenizer`"],
                        [blend("{bad}/other/train")]),
    "empty corpus": (3, ["empty/train: holds no text", "add text", "data_prep"], [blend("{bad}/empty/train")]),
    "changed model": (4, ["model.ffn_hidden_size: was 48, is 64", "set these keys back"],
                      ["run_dir={bad}/changed", "model.ffn_hidden_size=64"]),
    "full disk, rank 0": (4, ["step-00000011.tmp", "older checkpoints are intact", "free space"],
                          ["run_dir={bad}/full_0", "checkpoint.interval=1"]),
    "full disk, rank 1": (4, ["step-00000011.tmp", "older checkpoints are intact", "free space"],
                          ["run_dir={bad}/full_1", "checkpoint.interval=1"]),
    "not finite": (78, ["optimizer.lr", "3 in a row", "schedule.max_skipped_steps=2"],
                   ["run_dir={bad}/not_finite", "optimizer.lr=1e30", "schedule.max_skipped_steps=2"]),
    "above a bound": (78, ["step 3: play/largest_ratio=", "above its bound 1.01", "stopped-step-00000003.json",
                           "resume from the newest checkpoint"],
                      ["run_dir={bad}/bound", "objectives.play.start_step=1",
                       "objectives.play.stop_above={behavior_kl: 9, largest_ratio: 1.01}",
                       "evaluation.tasks=[]", "evaluation.text=[]"]),
    "run folder is a file": (2, ["data/train.bin: not a folder that can be written", "set run_dir"],
                             ["run_dir={bad}/../data/train.bin"]),
    "run folder can't be made": (2, ["/proc/rlpt: not a folder that can be written", "set run_dir"],
                                 ["run_dir=/proc/rlpt"]),
    "nothing to start from": (2, ["warm_start=", "neither a run with checkpoints nor a checkpoint"],
                              ["warm_start={bad}/nothing"]),
}  # fmt: skip
BILEVEL = ["parallel.distributed_optimizer=false", "bilevel={upper: text, lower: play}", "schedule.steps=3",
           "objectives.values=null", "objectives.roles=null", "objectives.games=null", "objectives.proposals=null",
           "evaluation.tasks=[]", "evaluation.text=[]", "warm_start={bad}/changed"]  # fmt: skip
GOOD = {  # name -> overrides of a run that ends well; in the same launch, for its ranks are there
    "bilevel at two tensor ranks": ["run_dir={bad}/tensor", *BILEVEL],
    "bilevel at two replicas": ["run_dir={bad}/replicas", "parallel.tensor=1", *BILEVEL],
}


@pytest.fixture(scope="session")
def outcomes(config, folders):
    """[rank 0's, rank 1's] outcomes of all cases, from one launch."""
    cases = [
        {
            "name": name,
            "arguments": [
                QUIET,
                f"run_dir={folders / 'run'}",
                *(text.replace("{bad}", str(folders)) for text in texts),
            ],
            "full_disk": int(name[-1]) if name.startswith("full disk") else None,
            "ends_well": name in GOOD,
        }
        for name, texts in {**{name: texts for name, (_, _, texts) in CASES.items()}, **GOOD}.items()
    ]
    (folders / "cases.json").write_text(json.dumps(cases))
    worker = [__file__.replace("test_bad_runs", "bad_runs"), config, folders / "cases.json", folders / "out"]
    code, output = run([*ranks(2), *worker], folders / "log")
    assert code == 0, output
    return [json.loads((folders / f"out.{rank}").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_every_rank_ends_with_the_documented_code_and_a_clear_message(outcomes, name):
    code, words, _ = CASES[name]
    for rank, seen in enumerate(outcomes):
        assert seen[name][0] == code, (rank, seen[name])
        assert [word for word in words if word not in seen[name][1]] == [], (rank, seen[name])


@pytest.mark.parametrize("name", GOOD)
def test_bilevel_runs_end_well(outcomes, name):
    assert [seen[name] for seen in outcomes] == [[0, ""]] * 2


def test_a_bilevel_run_is_the_same_at_two_tensor_ranks_and_two_replicas(outcomes, folders):
    """From the same weights: losses, gain, its error and the shadow's gradient norm, to rounding."""
    tensor, replicas = (steps(metric_rows(folders / name)) for name in ("tensor", "replicas"))
    keys = ("text/loss", "play/loss", "gradient_norm", "bilevel/gain", "bilevel/gain_error")
    for step in (1, 2):
        for key in (*keys, "bilevel/shadow_gradient_norm"):
            assert replicas[step][key] == pytest.approx(tensor[step][key], rel=1e-3, abs=1e-6), (step, key)
    assert tensor[1]["bilevel/gain"] == 0  # the shadow starts at the weights, wherever those came from
    assert tensor[2]["bilevel/gain_error"] > 1e-4
    assert list(tensor) == list(replicas) == [1, 2, 3]


def test_a_warm_start_begins_where_the_other_run_stood(outcomes, folders, unbroken):
    """The first loss of text is far below that of random weights, and the counters are a new run's."""
    first = steps(metric_rows(unbroken))[1]
    warm = steps(metric_rows(folders / "tensor"))[1]
    assert warm["text/loss"] < first["text/loss"] - 0.3
    assert warm["tokens"] == first["tokens"]


def test_a_run_that_stopped_itself_leaves_the_worst_rows(outcomes, folders):
    run_dir = folders / "bound"
    left = json.loads((run_dir / "stopped-step-00000003.json").read_text())
    assert [path.name for path in run_dir.glob("stopped-*")] == ["stopped-step-00000003.json"]
    assert left["step"] == 3
    worst = left["worst"]
    assert len(worst) == 8
    assert {row["objective"] for row in worst} <= {"play", "values"}
    sizes = [row["mean_abs_log_ratio"] for row in worst]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1e-3
    assert all(len(row["tokens"]) == len(row["log_ratio"]) == len(row["policy_steps"]) for row in worst)
    assert max(steps(metric_rows(run_dir))) == 2  # the step was not made
    assert [row["alert"] for row in metric_rows(run_dir) if "alert" in row] == ["stopped"]
    assert find_latest(run_dir) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_leaves_the_older_checkpoint_whole(outcomes, folders, rank):
    run_dir = folders / f"full_{rank}"
    assert [path.name for path in sorted((run_dir / "checkpoints").glob("step-*"))] == [OLD]
    assert fault(run_dir / "checkpoints" / OLD) is None
    assert find_latest(run_dir).name == OLD
    assert max(steps(metric_rows(run_dir))) == 2 * INTERVAL + 1  # the step was made, its checkpoint was not
    name = f"full disk, rank {rank}"
    assert f"rank {rank}: " in outcomes[0][name][1]  # the first rank, whose message is shown, says whose disk it is
    # what the system says, or torch's writer where it is the one that meets the limit
    assert any(words in outcomes[0][name][1] for words in ("File too large", "unexpected pos"))


def test_a_refused_resume_leaves_the_runs_configuration_alone(outcomes, folders, unbroken):
    assert (folders / "changed" / "config.yaml").read_bytes() == (unbroken / "config.yaml").read_bytes()


def test_steps_that_are_not_finite_are_left_out_and_counted(outcomes, folders):
    rows = steps(metric_rows(folders / "not_finite"))
    last = max(rows)
    assert [at for at in rows if rows[at].get("skipped")] == [last - 2, last - 1, last]
    assert rows[1]["text/loss"] is not None
    assert rows[last]["nonfinite"]
    alerts = [row for row in metric_rows(folders / "not_finite") if "alert" in row]
    assert [row["alert"] for row in alerts] == ["non-finite step"] * 3


def test_a_run_that_failed_before_its_first_step_can_start(outcomes, folders):
    """Nothing is left in its folder that a later start would take for a checkpoint."""
    assert find_latest(folders / "run") is None


def ended(capsys, *arguments):
    """(exit code, stderr) of the command line, in this process."""
    with pytest.raises(SystemExit) as stop:
        main(["train", *map(str, arguments)])
    return stop.value.code, capsys.readouterr().err


def test_a_misspelt_key_ends_before_any_rank_starts(config, capsys):
    code, message = ended(capsys, config, "optimiser.lr=1e-3")
    assert code == 2
    assert "optimiser: unknown key; did you mean 'optimizer'?" in message
    code, message = ended(capsys, config, "objectives.play.microbatch=1")
    assert code == 2
    assert "objectives.play.microbatch: unknown key; did you mean 'objectives.play.microbatches'?" in message
    code, message = ended(capsys, config.with_name("confg.yaml"))
    assert code == 2
    assert "did you mean 'config.yaml'?" in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parallel.tensor=4"], "parallel.tensor=4 does not divide model.num_query_groups=2"),
        (["parallel.tensor=3"], "parallel.tensor=3 does not divide model.num_attention_heads=4"),
        (["model.ffn_hidden_size=49"], "parallel.tensor=2 does not divide model.ffn_hidden_size=49"),
        (["parallel.pipeline=4"], "parallel.pipeline=4 does not divide model.num_layers=2"),
        (["parallel.pipeline=2"], "objectives.play: episodes are played in place and need parallel.pipeline=1"),
        (["parallel.sequence_parallel=true", "batch.sequence_length=47"], "does not divide batch.sequence_length=47"),
    ],
)
def test_a_layout_that_does_not_divide_names_both_keys(config, capsys, overrides, words):
    code, message = ended(capsys, config, *overrides)
    assert code == 2
    assert words in message


def test_vocabulary_and_world_size_that_do_not_divide(config):
    with pytest.raises(ConfigError, match=r"set model\.vocab_divisor to a multiple of 2"):
        check_vocabulary(load_config(config, ["model.vocab_divisor=1"]), 401)
    with pytest.raises(ConfigError, match="start 2 ranks"):
        check_world(load_config(config), 3)
    with pytest.raises(ConfigError, match=r"objectives.text.microbatches=2 .* choose a multiple of 4"):
        check_world(load_config(config), 8)


def test_data_that_is_not_there_ends_before_any_rank_starts(config, capsys):
    code, message = ended(capsys, config, blend(config.parent / "data" / "absent"))
    assert code == 3
    assert "absent.idx: no such file; prepare the data first" in message


def test_the_jobs_exit_code_is_the_errors_and_its_message_comes_once(config, folders):
    """Two ranks that both find the shard damaged: exit 3, one message, no traceback, nothing hangs."""
    arguments = [config, QUIET, f"run_dir={folders / 'coded'}", blend(folders / "truncated" / "train")]
    code, output = run([*ranks(2), "-m", "rlpt.train", *arguments], folders / "coded.log")
    assert code == 3, output
    assert output.count("error: ") == 1
    assert "truncated/train.bin" in output
    assert "Traceback" not in output
