"""Experiments: files, claims, and going on where one stopped; runs are stood in for by files in their folders."""

import json
from pathlib import Path

import pytest

from rlpt.claims import Claim, judge, training_figures_of
from rlpt.config import dump_config, load_config
from rlpt.errors import ConfigError, DataError, UserError
from rlpt.experiment import load_experiment, print_claims, run_experiment, summarise_experiment

RECIPE = """
tokenizer: tokenizer
objectives:
  text: {algorithm: {name: next_token}, source: {name: corpus, blend: [{path: text}]}}
"""
EXPERIMENT = """
name: small
recipe: ../recipe.yaml
seeds: [1, 2, 3]
arms:
  slow: {overrides: [optimizer.lr=1e-4]}
  fast: {overrides: [optimizer.lr=1e-2]}
claims:
  - text: fast is near slow
    value: {ratio: ["fast:bits_per_byte.end", "slow:bits_per_byte.end"]}
    bound: {at_most: 1.05}
  - {text: fast sorts, value: {figure: ["fast:tasks.sort.pass@1.end"]}, bound: {at_least: 0.9}}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    Path("recipe.yaml").write_text(RECIPE)
    return folder / "small.yaml"


def write(place, text=EXPERIMENT):
    place.write_text(text)
    return load_experiment(place)


def summary(bits, success):
    task = {"level": 3, "pass@1": {"start": 0.0, "end": success, "interval": [success - 0.1, success + 0.05]}}
    return {"bits_per_byte": {"start": 5.0, "end": bits, "unigram": 4.0}, "tasks": {"sort": task}}


def finish(experiment, figures):
    """Puts down what finished runs leave: `figures[arm][seed]` = (bits per byte, success)."""
    for arm, seeds in figures.items():
        for seed, (bits, success) in seeds.items():
            folder = experiment.run_directory(arm, seed)
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(dump_config(experiment.configs()[arm, seed]))
            (folder / "summary.json").write_text(json.dumps(summary(bits, success)))
            evaluation = {"bits_per_byte": bits, "tasks": {"sort": {"pass@1": success, "interval": [0, 1]}}}
            (folder / "metrics.jsonl").write_text(json.dumps({"step": 9, "evaluation": evaluation}) + "\n")


FIGURES = {
    "slow": {1: (2.0, 0.1), 2: (2.0, 0.1), 3: (4.0, 0.1)},
    "fast": {1: (2.2, 0.8), 2: (1.8, 0.9), 3: (4.0, 1.0)},
}


def test_arms_are_ordinary_recipes_with_their_own_folder_and_seed(place):
    config = write(place).configs()["fast", 2]
    assert config.optimizer.lr == 0.01
    assert config.seed == 2
    assert config.directory == Path("runs/experiments/small/fast-seed2")


def test_finished_runs_are_kept_and_claims_judged_over_seeds(place, capsys):
    experiment = write(place)
    finish(experiment, FIGURES)
    result = run_experiment(experiment)  # starts no run: all of them are finished
    assert json.loads(Path("runs/experiments/small/summary.json").read_text()) == result
    assert list(result) == ["name", "arms", "claims"]
    assert set(result["arms"]["slow"]) == {"1", "2", "3"}
    ratio, sorts = result["claims"]
    assert ratio["value"] == pytest.approx((1.1 + 0.9 + 1.0) / 3)  # mean of ratios at the same seed, not ratio of means
    half = 4.302653 * 0.1 / 3**0.5  # t(0.975, 2 degrees), standard deviation 0.1
    assert ratio["interval"] == pytest.approx([1.0 - half, 1.0 + half], rel=1e-5)
    assert ratio["bound"] == {"at_most": 1.05}
    assert ratio["holds"] is True
    assert sorts["value"] == pytest.approx(0.9)
    assert Path("runs/experiments/small/learning.png").read_bytes().startswith(b"\x89PNG")
    print_claims(result)
    assert "fast sorts" in capsys.readouterr().out


def test_claim_that_does_not_hold_is_reported_and_no_error(place):
    experiment = write(place)
    finish(experiment, {**FIGURES, "fast": dict.fromkeys((1, 2, 3), (9.0, 0.2))})
    assert [claim["holds"] for claim in summarise_experiment(experiment)["claims"]] == [False, False]


def test_training_figures_that_a_claim_is_made_of():
    references = ["a:training.play.reward/gain.end", "b:tasks.sort.pass@1.end"]
    claim = Claim.model_validate({"text": "t", "value": {"difference": references}, "bound": {"at_least": 0}})
    assert training_figures_of(claim) == ["play/reward/gain"]


def test_one_seed_takes_the_figures_own_interval_or_none():
    summaries = {"fast": {"1": summary(2.0, 0.8)}}

    def claim(**value):
        return Claim.model_validate({"text": "t", "value": value, "bound": {"at_least": 0.5}})

    figure = judge(claim(figure=["fast:tasks.sort.pass@1.end"]), summaries, ["1"])
    assert figure["interval"] == pytest.approx([0.7, 0.85])
    assert judge(claim(figure=["fast:bits_per_byte.end"]), summaries, ["1"])["interval"] is None
    both = ["fast:tasks.sort.pass@1.end", "fast:bits_per_byte.end"]
    assert judge(claim(difference=both), summaries, ["1"])["value"] == pytest.approx(-1.2)
    assert judge(claim(max=both), summaries, ["1"])["value"] == 2.0
    assert judge(claim(min=both), summaries, ["1"]) == {
        "text": "t",
        "value": 0.8,
        "interval": None,
        "bound": {"at_least": 0.5},
        "holds": True,
    }


@pytest.mark.parametrize(
    "reference", ["fast:tasks.sotr.pass@1.end", "fast:bits_per_byte", "fast:tasks.sort.pass@1.interval"]
)
def test_figure_that_is_no_number_is_named(reference):
    claim = Claim.model_validate({"text": "t", "value": {"figure": [reference]}, "bound": {"at_least": 0}})
    with pytest.raises(DataError, match=reference.split(":")[1]):
        judge(claim, {"fast": {"1": summary(2.0, 0.8)}}, ["1"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fast:tasks", "fasst:tasks", "did you mean 'fast'"),
        ("seeds:", "sedes:", "did you mean 'seeds'"),
        ("ratio: [", "ratios: [", "claims.0.value.ratios"),
        ("bound: {at_least: 0.9}", "bound: {at_least: 0.9, at_most: 1}", "exactly one of at_most, at_least"),
        ("[1, 2, 3]", "[1, 1]", "given twice"),
        ("fast:bits_per_byte.end", "bits_per_byte.end", "ARM:path"),
    ],
)
def test_misspelt_experiment_is_refused(place, old, new, message):
    with pytest.raises(ConfigError, match=message):
        write(place, EXPERIMENT.replace(old, new))


def test_every_arm_is_checked_before_any_starts(place):
    experiment = write(place, EXPERIMENT.replace("lr=1e-2", "lrr=1e-2"))
    with pytest.raises(ConfigError, match=r"arms\.fast(.|\n)*optimizer\.lr"):
        run_experiment(experiment)
    assert not Path("runs").exists()


def test_folder_of_another_configuration_does_not_pass_as_the_arms(place):
    experiment = write(place)
    finish(experiment, FIGURES)
    other = load_config(Path("recipe.yaml"), [*experiment.overrides("fast", 2), "schedule.steps=7"])
    (experiment.run_directory("fast", 2) / "config.yaml").write_text(dump_config(other))
    with pytest.raises(ConfigError, match=r"fast-seed2.*schedule\.steps"):
        run_experiment(experiment)


def test_runs_on_other_data_do_not_pass_as_the_arms(place):
    experiment = write(place)
    finish(experiment, FIGURES)
    Path("manifest.json").write_text("1")  # beside the recipe's tokenizer and text
    run_experiment(experiment)
    run_experiment(experiment)
    Path("manifest.json").write_text("2")
    with pytest.raises(ConfigError, match=r"other data \(different now: manifest\.json\); delete that folder"):
        run_experiment(experiment)


def test_failing_arm_ends_with_its_exit_code_and_finished_ones_stay(place):
    experiment = write(place, EXPERIMENT.replace("[1, 2, 3]", "[1]"))
    finish(experiment, {"slow": {1: (2.0, 0.1)}})
    with pytest.raises(UserError, match="arm fast, seed 1") as caught:
        run_experiment(experiment)  # a real start: its rank finds no tokenizer
    assert caught.value.exit_code == DataError.exit_code
    assert (experiment.run_directory("slow", 1) / "summary.json").exists()
