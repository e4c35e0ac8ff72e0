"""The configuration of a preparation: every wrong key named, near names suggested, the shipped recipes valid."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.config import PrepConfig, fingerprint, load_prep_config
from rlpt.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "configs" / "data"


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load_and_their_tasks_exist(path):
    from data_prep.stages.synthesize import create_tasks

    config = load_prep_config(path, ["tokenizer.vocab_size=1024"])
    assert config.tokenizer.vocab_size == 1024
    assert config.directory == Path("runs/data") / config.name
    create_tasks(config)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sorces: []", "sorces: unknown key; did you mean 'sources'"),
        ("sources: [{name: a, pathes: [x]}]", r"sources\.0\.pathes: unknown key; did you mean 'sources\.0\.paths'"),
        ("sources: [{name: a, paths: [x]}]\ntokenizer: {vocab_siz: 3}", r"did you mean 'tokenizer\.vocab_size'"),
        ("sources: [{name: a, paths: [x]}]\nsynthesize: {tasks: [{tusk: 1}]}", r"synthesize\.tasks\.0\.tusk"),
        ("sources: []", "sources"),
        ("sources: [{name: a}]", "exactly one of paths, python_library, hub and look_ups"),
        (
            "sources: [{name: a, paths: [x], python_library: true}]",
            "exactly one of paths, python_library, hub and look_ups",
        ),
        ("sources: [{name: a, paths: [x]}, {name: a, paths: [y]}]", "'a' names two sources"),
        ("sources: [{name: solutions, paths: [x]}]", "is no name for a shard"),
        ("sources: [{name: a/b, paths: [x]}]", "is no name for a shard"),
        ("sources: [{name: a, paths: [x]}]\nsplit: {valid_share: 0}", r"split\.valid_share"),
        ("sources: [{name: a, paths: [x]}]\ntokenizer: {vocab_size: many}", r"tokenizer\.vocab_size.*'many'"),
    ],
)
def test_wrong_configurations_are_named(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load_prep_config(write(tmp_path, text))


def test_tasks_and_levels_are_checked_before_any_work():
    from data_prep.stages.synthesize import create_tasks

    def config(**entry):
        tasks = [{"task": {"name": "sort"}, "levels": [0], "documents": 1} | entry]
        return PrepConfig.model_validate({"sources": [{"name": "a", "paths": ["x"]}], "synthesize": {"tasks": tasks}})

    with pytest.raises(ConfigError, match=r"synthesize\.tasks\.0\.task\.name: unknown task 'srt'; did you mean 'sort'"):
        create_tasks(config(task={"name": "srt"}))
    with pytest.raises(ConfigError, match=r"synthesize\.tasks\.0\.levels: 99 is outside"):
        create_tasks(config(levels=[0, 99]))


def test_fingerprints_depend_on_values_alone():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_help_and_configuration_need_no_heavy_library():
    script = (
        "import sys\n"
        "for name in ('torch', 'megatron', 'transformers', 'datasets', 'wandb', 'triton'):\n"
        "    sys.modules[name] = None\n"
        "import runpy\n"
        "sys.argv = ['data_prep', '--help']\n"
        "runpy.run_module('data_prep', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "synthesize" in done.stdout
