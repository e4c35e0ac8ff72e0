"""The configuration: files, overrides, near names, cross-checks."""

from pathlib import Path

import pytest
import yaml

from rlpt.config import check_vocabulary, check_world, dump_config, load_config, parse_config
from rlpt.config_files import apply_overrides, load_yaml, merge, parse_yaml
from rlpt.config_objectives import Ramp, SnapshotConfig, value_at
from rlpt.errors import ConfigError

MINIMAL = {
    "tokenizer": "data/tokenizer",
    "objectives": {"text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}}},
}
PLAY = {"algorithm": {"name": "grpo"}, "source": {"name": "episodes"}}


def configuration(*overrides, **sections):
    return parse_config(apply_overrides({**MINIMAL, **sections}, overrides))


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_directory():
    config = configuration()
    assert config.directory == Path("runs/run")
    assert configuration("run_dir=/tmp/x").directory == Path("/tmp/x")
    assert configuration("name=a").directory == Path("runs/a")


def test_dump_reads_back(tmp_path):
    config = configuration("optimizer.lr=1e-3", "evaluation.tasks=[{task: {name: sort}, level: 2}]")
    path = write(tmp_path, "config.yaml", dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "+1e-3", ".1e-2", "0.001"])
def test_exponents_are_numbers(text):
    assert parse_yaml(f"lr: {text}") == {"lr": 0.001}
    assert configuration(f"optimizer.lr={text}").optimizer.lr == 0.001


@pytest.mark.parametrize("text", ["e-3", "1e", "a1e-3", "'1e-3'", "1e-3x"])
def test_other_text_stays_text(text):
    assert isinstance(parse_yaml(f"lr: {text}")["lr"], str)


def test_bases_are_laid_underneath_in_order(tmp_path):
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", "model.yaml", "model: {num_layers: 2, hidden_size: 64}\nseed: 5\n")
    write(tmp_path, "run.yaml", "base: parts/model.yaml\nmodel: {num_layers: 6}\nname: run\n")
    path = write(tmp_path, "top.yaml", "base: [run.yaml, parts/model.yaml]\nseed: 7\n")
    assert load_yaml(path) == {"model": {"num_layers": 2, "hidden_size": 64}, "seed": 7, "name": "run"}


def test_a_component_of_another_name_brings_its_own_options():
    base = {"algorithm": {"name": "grpo", "clip": 0.2}, "name": "a", "objectives": {}}
    assert merge(base, {"algorithm": {"name": "reinforce"}})["algorithm"] == {"name": "reinforce"}
    assert merge(base, {"algorithm": {"name": "grpo", "kl": 1}})["algorithm"] == {"name": "grpo", "clip": 0.2, "kl": 1}
    assert merge(base, {"name": "b", "objectives": {}})["algorithm"] == {"name": "grpo", "clip": 0.2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: a.yaml\n", "include each other in a circle"),
        ("base: nowhere.yaml\n", "nowhere.yaml: no such configuration file"),
        ("seed: 1\nmodel:\n  num_layers: 1\n  num_layers: 2\n", r"a\.yaml:4: key 'num_layers' is given twice"),
        ("seed: [1\n", r"a\.yaml: not valid YAML"),
        ("- 1\n", r"a\.yaml: must be a mapping of keys, is a list"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_yaml(write(tmp_path, "a.yaml", text))


def test_files_that_cannot_be_read(tmp_path):
    write(tmp_path, "quickstart.yaml", "")
    with pytest.raises(ConfigError, match=r"did you mean 'quickstart\.yaml'"):
        load_yaml(tmp_path / "quikstart.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: can't be read"):
        load_yaml(tmp_path / "latin.yaml")


def test_overrides():
    values = {"a": {"b": 1}, "c": [{"d": 1}, 2]}
    changed = apply_overrides(values, ["a.b=[1, 2]", "c.0.d=x=y", "e.f=true", "a.g=null"])
    assert changed == {"a": {"b": [1, 2], "g": None}, "c": [{"d": "x=y"}, 2], "e": {"f": True}}
    assert values == {"a": {"b": 1}, "c": [{"d": 1}, 2]}, "the given values stay"


@pytest.mark.parametrize("override", ["a", "=1", "c.9=1", "c.x=1", "a.b.c=1", "a=[1"])
def test_wrong_overrides(override):
    with pytest.raises(ConfigError):
        apply_overrides({"a": {"b": 1}, "c": [1]}, [override])


def test_null_takes_an_inherited_objective_out():
    both = {**MINIMAL, "objectives": {**MINIMAL["objectives"], "play": PLAY}}
    assert set(parse_config(both).objectives) == {"text", "play"}
    assert set(parse_config(apply_overrides(both, ["objectives.play=null"])).objectives) == {"text"}
    with pytest.raises(ConfigError, match="objectives"):
        configuration("objectives.text=null")


PLAYED = {**MINIMAL["objectives"], "play": PLAY}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectives.play.coefficient=-1"], r"^objectives\.play\.coefficient: must be 0 or more"),
        (
            ["objectives.play.coefficient={start: 1, end: -1, steps: 5}"],
            r"^objectives\.play\.coefficient: .* 0 or more",
        ),
        (["objectives.play.coefficient={start: 1, end: 0, steps: 0}"], r"^objectives\.play\.coefficient\.steps: .*1"),
        (["objectives.play.coefficient={start: 1, end: 0, sept: 9}"], r"did you mean 'objectives\.play.*\.steps'"),
        (["objectives.play.coefficient=much"], r"^objectives\.play\.coefficient: .* valid number"),
        (["objectives.play.start_step=4", "objectives.play.stop_step=4"], "stop_step=4 is not after start_step=4"),
        (["objectives.play.turns={period: 3, active: 2, offset: 2}"], r"offset \+ active = 4 is beyond period=3"),
        (["objectives.play.turn={period: 3}"], r"turn: unknown key; did you mean 'objectives\.play\.turns'"),
        (["objectives.play.reference=strat", "snapshots.start={}"], "no snapshot 'strat'; did you mean 'start'"),
        (["objectives.play.reference=start"], "no snapshot 'start'; known: none; add it under snapshots"),
        (["snapshots.start.update=often"], r"^snapshots\.start\.update: .*'never', 'interval', 'ema' or 'pool'"),
        (["snapshots.start.decya=0.9"], r"unknown key; did you mean 'snapshots\.start\.decay'"),
        (["snapshots.policy={}"], r"snapshots\.policy: a name is .* not one of policy, shadow"),
        (["snapshots.a@3={}"], r"snapshots\.a@3: a name is letters, digits and _"),
        (["model.adapter.rank=0"], r"^model\.adapter\.rank: .*greater than or equal to 1"),
        (["model.adapter={rnak: 4}"], r"unknown key; did you mean 'model\.adapter\.rank'"),
        (["bilevel={upper: text, lower: pley}"], r"bilevel\.lower: no objective 'pley'; did you mean 'play'"),
        (["bilevel={upper: txt, lower: play}"], r"bilevel\.upper: no objective 'txt'; did you mean 'text'"),
        (["bilevel={upper: play, lower: play}"], "upper and lower are both 'play'"),
        (["bilevel={upper: play, lower: text}"], r"bilevel\.lower: objective 'text' does not play episodes"),
        (["bilevel={upper: text, lower: play, balance: 1.5}"], r"^bilevel\.balance: must be between 0 and 1"),
        (["bilevel={upper: text, lower: play}"], r"bilevel\.meta: .* add model\.adapter, or set meta: false"),
        (["bilevel={upper: text, lower: play}", "model.adapter={}"], r"set parallel\.distributed_optimizer: false"),
    ],
)
def test_wrong_objectives_snapshots_and_bilevels_name_the_key(overrides, message):
    with pytest.raises(ConfigError) as caught:
        configuration(*overrides, objectives=PLAYED)
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(str(caught.value).splitlines()[1])


def test_a_wrong_ramp_is_told_as_a_ramp_and_a_wrong_number_as_a_number():
    for text, keys in {
        "{start: 1, end: 0, sept: 9}": [".sept", ".steps"],
        "{start: x, end: 0, steps: 9}": [".start"],
        "much": [""],
    }.items():
        with pytest.raises(ConfigError) as caught:
            configuration(f"objectives.play.coefficient={text}", objectives=PLAYED)
        found = [line.partition(":")[0] for line in str(caught.value).splitlines()[1:]]
        assert found == [f"objectives.play.coefficient{key}" for key in keys]


def test_a_bilevel_run_that_fits():
    bilevel = "bilevel={upper: text, lower: play, balance: {start: 0, end: 1, steps: 9}}"
    config = configuration(bilevel, "model.adapter={}", "parallel.distributed_optimizer=false", objectives=PLAYED)
    assert config.bilevel.meta
    assert config.model.adapter.rank == 8
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    assert not configuration(bilevel.replace("{upper", "{meta: false, upper"), objectives=PLAYED).bilevel.meta


@pytest.mark.parametrize(
    ("overrides", "empty"),
    [
        (["objectives.text.start_step=3"], None),  # play is always there
        (["objectives.text.stop_step=400", "objectives.play.start_step=400"], None),
        (["objectives.text.stop_step=400", "objectives.play.start_step=401"], 400),
        (["objectives.text.start_step=1", "objectives.play.start_step=1"], 0),
        (["objectives.text.stop_step=998", "objectives.play.stop_step=999"], 999),
        (["objectives.text.turns={period: 2, active: 1}", "objectives.play.start_step=7"], 1),
        (
            [
                "objectives.text.turns={period: 2, active: 1}",
                "objectives.play.turns={period: 2, active: 1, offset: 1}",
            ],
            None,
        ),
    ],
)
def test_every_step_must_have_something_to_learn_from(overrides, empty):
    if empty is None:
        configuration(*overrides, objectives=PLAYED)
        return
    with pytest.raises(ConfigError, match=f"none takes part in step {empty} of schedule.steps=1000"):
        configuration(*overrides, objectives=PLAYED)


def test_ramps_by_hand():
    ramp = Ramp(start=2.0, end=-1.0, steps=3, begin=4)
    assert [ramp.at(step) for step in range(9)] == pytest.approx([2, 2, 2, 2, 2, 1, 0, -1, -1])
    assert [ramp.at(0), ramp.at(7), ramp.at(10**9)] == [2.0, -1.0, -1.0]
    assert value_at(0.1, 5) == 0.1
    assert value_at(ramp, 5) == pytest.approx(1)


def test_a_pool_may_have_several_copies():
    assert [SnapshotConfig(update=update, keep=3).copies for update in ("never", "ema", "pool")] == [1, 1, 3]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedul.steps=5", r"^schedul: unknown key; did you mean 'schedule'\?"),
        ("schedule.stpes=5", r"^schedule\.stpes: unknown key; did you mean 'schedule\.steps'\?"),
        (
            "objectives.text.microbatchs=5",
            r"^objectives\.text\.microbatchs: unknown key; did you mean '.*microbatches'",
        ),
        ("model.num_layers=0", r"^model\.num_layers: .*greater than or equal to 1 \(given: 0\)"),
        ("optimizer.lr=fast", r"^optimizer\.lr: .*number.* \(given: 'fast'\)"),
        ("schedule.decay=linear", r"^schedule\.decay: .*'cosine', 'wsd' or 'constant'"),
        ("model.num_query_groups=3", "num_query_groups=3 does not divide num_attention_heads=4"),
        ("model.hidden_size=126", "num_attention_heads=4 does not divide hidden_size=126"),
        ("model.hidden_size=12", "hidden_size / num_attention_heads must be even"),
        ("parallel.tensor=3", r"parallel\.tensor=3 does not divide model\.num_attention_heads=4"),
        ("parallel.tensor=4", r"parallel\.tensor=4 does not divide model\.num_query_groups=2"),
        ("parallel.pipeline=3", r"parallel\.pipeline=3 does not divide model\.num_layers=4"),
        ("evaluation.pass_at=[1, 8]", "pass_at=.* needs samples >= 8, samples=4"),
    ],
)
def test_wrong_values_name_the_key(override, message):
    with pytest.raises(ConfigError) as caught:
        configuration(override)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 1, lines
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(lines[0])


def test_ffn_and_sequence_must_divide():
    with pytest.raises(ConfigError, match=r"model\.ffn_hidden_size=353"):
        configuration("parallel.tensor=2", "model.ffn_hidden_size=353")
    with pytest.raises(ConfigError, match=r"parallel\.tensor=2 does not divide batch\.sequence_length=33"):
        configuration("parallel.tensor=2", "parallel.sequence_parallel=true", "batch.sequence_length=33")
    configuration("parallel.tensor=2", "batch.sequence_length=33")


def test_episodes_need_one_pipeline_stage():
    objectives = {**MINIMAL["objectives"], "play": PLAY}
    with pytest.raises(ConfigError, match=r"objectives\.play: .* need parallel\.pipeline=1 \(given: 2\)"):
        configuration("parallel.pipeline=2", objectives=objectives)
    configuration("parallel.pipeline=2")
    with pytest.raises(
        ConfigError, match=r"evaluation\.tasks and games are answered in place and need parallel\.pipeline"
    ):
        configuration("parallel.pipeline=2", "evaluation.tasks=[{task: {name: sort}, level: 2}]")
    with pytest.raises(
        ConfigError, match=r"evaluation\.tasks and games are answered in place and need parallel\.pipeline"
    ):
        configuration("parallel.pipeline=2", "evaluation.games=[{task: {name: nim}, opponent: {name: random}}]")


def test_all_wrong_keys_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        configuration("sched.steps=5", "model.layers=3", "optimizer.lr=-1", "tokenizer=null")
    text = str(caught.value)
    assert all(key in text for key in ("sched:", "model.layers:", "optimizer.lr:", "tokenizer:"))


def test_world_size():
    config = configuration("parallel.tensor=2", "parallel.pipeline=2", "objectives.text.microbatches=4")
    assert check_world(config, 4) == 1
    assert check_world(config, 8) == 2
    for world in (1, 2, 6):
        with pytest.raises(ConfigError, match=f"world size {world} is not tensor x pipeline x data = 2 x 2 x n"):
            check_world(config, world)
    with pytest.raises(ConfigError, match="2 x 1 x 3; start 6 ranks"):
        check_world(configuration("parallel.tensor=2", "parallel.data=3"), 4)
    with pytest.raises(ConfigError, match=r"objectives\.text\.microbatches=4 .* 3; choose a multiple of 3"):
        check_world(config, 12)


def test_vocabulary_is_padded_and_must_divide():
    assert check_vocabulary(configuration(), 512) == 512
    assert check_vocabulary(configuration(), 513) == 576
    config = configuration("parallel.tensor=2", "model.vocab_divisor=1")
    assert check_vocabulary(config, 512) == 512
    with pytest.raises(ConfigError, match=r"does not divide the padded vocabulary 513 .* multiple of 2"):
        check_vocabulary(config, 513)


def test_the_dump_is_plain_yaml():
    assert yaml.safe_load(dump_config(configuration()))["tokenizer"] == "data/tokenizer"
