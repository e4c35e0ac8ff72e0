"""Every YAML under configs/ loads by the loader of its kind, and its recipe's components build."""

from pathlib import Path

import pytest

from data_prep.config import load_prep_config
from rlpt.config import dump_config, load_config
from rlpt.experiment import load_experiment
from rlpt.plan import check_components, default_ranks, make_plan

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.y*ml"))
PARTS = ("base", "algorithms")  # folders of parts that recipes lay underneath
SIZES = "sizes"  # recipes for clusters


def kind(path):
    return path.parts[0] if len(path.parts) > 1 else "recipe"


def of_kind(wanted):
    return [path for path in FILES if kind(path) == wanted]


def test_every_file_is_of_a_known_kind():
    known = {"recipe", "data", "experiments", SIZES, *PARTS}
    assert FILES
    assert [path for path in FILES if kind(path) not in known] == []


@pytest.mark.parametrize("path", of_kind("recipe") + of_kind(SIZES), ids=str)
def test_recipe_dry_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(CONFIGS / path)
    check_components(config)
    plan = make_plan(config, default_ranks(config))
    assert plan.parameters > 0
    assert plan.steps == config.schedule.steps
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("path", of_kind("data"), ids=str)
def test_data_configuration_loads(path):
    assert load_prep_config(CONFIGS / path).sources


@pytest.mark.parametrize("path", of_kind("experiments"), ids=str)
def test_experiment_loads_and_every_arm_resolves(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = load_experiment(CONFIGS / path)
    assert experiment.name == path.stem
    assert experiment.data is None or load_prep_config(experiment.data)
    for (arm, seed), config in experiment.configs().items():
        check_components(config)
        assert config.directory == experiment.run_directory(arm, seed)
        evaluated = {task.label or task.task["name"] for task in config.evaluation.tasks}
        for claim in experiment.claims:
            for reference in claim.value.references:
                of_arm, _, path_of_figure = reference.partition(":")
                if of_arm != arm:
                    continue
                figure = path_of_figure.split(".")
                assert figure[0] != "tasks" or figure[1] in evaluated, f"{reference}: not evaluated"


def test_quickstart_evaluates_the_levels_that_it_trains():
    config = load_config(CONFIGS / "quickstart.yaml")
    source = config.objectives["play"].source
    trained = {entry["task"]["name"]: entry["curriculum"]["target_level"] for entry in source["tasks"]}
    assert {task.task["name"]: task.level for task in config.evaluation.tasks} == trained
