"""The whole preparation on a few files: outputs, restart, errors on the command line, and the parts in between."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from data_prep import __main__ as command_line
from data_prep.config import TokenizerConfig, load_prep_config
from data_prep.documents import Document, read_documents
from data_prep.ingest import is_valid
from data_prep.pipeline import NAMES, STAGES, run
from data_prep.tokenizer import check_tokenizer, train_model
from rlpt.data.indexed import open_shard
from rlpt.data.manifest import read_manifest, sha256_file
from rlpt.data.tokenizer import SentencePieceTokenizer, load_tokenizer
from rlpt.errors import DataError
from rlpt.template import solution_text

WORDS = (
    "the",
    "number",
    "of",
    "text",
    "in",
    "line",
    "and",
    "file",
    "with",
    "small",
    "old",
    "new",
    "path",
    "node",
    "left",
)


def write_config(folder, **sections):
    rng = random.Random(3)
    (folder / "text").mkdir(exist_ok=True)
    for index in range(60):
        words = [f"{rng.choice(WORDS)} {rng.randrange(100)}" for _ in range(40)]
        (folder / "text" / f"{index:02}.txt").write_text(" ".join(words) + f"\n  <|answer|> é\u2581 {index}\n")
    tasks = [
        {"task": {"name": "reverse"}, "levels": [0, 1], "documents": 20},
        {"task": {"name": "addition"}, "levels": [1], "documents": 10},
    ]
    values = {
        "name": "tiny",
        "output": str(folder / "out"),
        "sources": [{"name": "text", "paths": [str(folder / "text")]}],
        "synthesize": {"tasks": tasks},
        "split": {"valid_share": 0.2},
        "tokenizer": {"vocab_size": 400},
    } | sections
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run("all", load_prep_config(write_config(folder)))
    return folder


def documents_of(folder, name):
    tokenizer = load_tokenizer(folder / "out" / "tokenizer")
    shard = open_shard(folder / "out" / name, tokenizer)
    for index in range(shard.num_documents):
        ids = shard.document(index)
        assert ids[-1] == tokenizer.eos_id
        yield tokenizer.decode(ids.tolist())


def test_every_document_is_in_one_shard_and_comes_back_to_the_byte(prepared):
    train, valid = list(documents_of(prepared, "text-train")), list(documents_of(prepared, "text-valid"))
    files = [path.read_text() for path in (prepared / "text").iterdir()]
    assert sorted(train + valid) == sorted(files)
    assert valid == [
        text for text in sorted(files, key=lambda t: int(t.split()[-1])) if is_valid(Document(text, ""), 0.2)
    ]
    assert 3 <= len(valid) <= 25


def test_solutions_are_the_tasks_own_from_training_seeds_alone(prepared):
    from rlpt.tasks.base import create_task

    lines = (prepared / "out" / "documents" / "solutions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert list(documents_of(prepared, "solutions-train")) == [record["text"] for record in records]
    assert [record["task"] for record in records] == ["reverse"] * 20 + ["addition"] * 10
    assert [record["level"] for record in records[:4]] == [0, 1, 0, 1]
    assert len({record["seed"] for record in records}) == len(records)
    for record in records:
        assert record["seed"] < 1 << 62
        task = create_task({"name": record["task"]})
        problem = task.sample(record["seed"], record["level"])
        assert record["text"] == solution_text(problem, task.solution(problem))


def test_the_manifest_tells_what_the_shards_hold(prepared):
    out = prepared / "out"
    manifest, tokenizer = read_manifest(out), load_tokenizer(out / "tokenizer")
    assert set(manifest.shards) == {"text-train", "text-valid", "solutions-train"}
    assert (manifest.tokenizer_sha256, manifest.vocab_size, manifest.seed) == (tokenizer.sha256, 400, 1)
    assert manifest.config["name"] == "tiny"
    text_bytes = sum(manifest.shards[name].utf8_bytes for name in ("text-train", "text-valid"))
    assert text_bytes == sum(path.stat().st_size for path in (prepared / "text").iterdir())
    for name, entry in manifest.shards.items():
        data = np.fromfile(out / f"{name}.bin", dtype=np.uint16)
        assert (entry.tokens, entry.largest_id) == (len(data), data.max())
        assert entry.documents == (data == tokenizer.eos_id).sum()
        assert entry.bin_sha256 == sha256_file(out / f"{name}.bin")
        assert entry.idx_sha256 == sha256_file(out / f"{name}.idx")


def test_a_second_run_does_nothing_and_a_changed_key_redoes_only_what_depends_on_it(tmp_path, capsys):
    path = write_config(tmp_path)

    def done(stage, *overrides):
        run(stage, load_prep_config(path, overrides))
        lines = capsys.readouterr().err.splitlines()
        return {name for name in STAGES if any(line.startswith(name) and "up to date" not in line for line in lines)}

    assert done("all") == set(STAGES) - {"manifest"}
    first = (tmp_path / "out" / "manifest.json").read_bytes()
    assert done("all") == set()
    assert (tmp_path / "out" / "manifest.json").read_bytes() == first
    assert done("all", "tokenizer.vocab_size=410") == {"tokenizer", "encode"}
    assert read_manifest(tmp_path / "out").vocab_size == 410
    assert done("all", "tokenizer.vocab_size=410", "synthesize.trace_share=0") == {"synthesize", "tokenizer", "encode"}
    (tmp_path / "out" / "text-train.bin").unlink()
    assert done("all", "tokenizer.vocab_size=410", "synthesize.trace_share=0") == {"encode"}
    with pytest.raises(DataError, match="stage encode needs the outputs of synthesize"):
        done("encode")
    assert done("all") == {"synthesize", "tokenizer", "encode"}
    assert (tmp_path / "out" / "manifest.json").read_bytes() == first


def test_an_interrupted_encode_leaves_no_manifest(tmp_path):
    config = load_prep_config(write_config(tmp_path))
    run("all", config)
    out = tmp_path / "out"
    (out / ".stages" / "encode.json").unlink()
    bad = out / "split" / "text-valid.jsonl"
    size = bad.stat().st_size
    bad.write_bytes(b"x" * size)
    with pytest.raises(DataError, match=r"text-valid\.jsonl:1: malformed JSON"):
        run("encode", config)
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*.tmp"))


def invoke(*arguments):
    return CliRunner().invoke(command_line.app, [str(argument) for argument in arguments])


def test_command_line_errors_are_one_line_with_their_exit_code(tmp_path, prepared):
    config = prepared / "config.yaml"
    assert set(command_line.STAGE_HELP) == set(NAMES)
    for arguments, code, message in [
        (["al", config], 2, "error: unknown stage 'al'; did you mean 'all'?"),
        (["all", tmp_path / "no.yaml"], 2, "no such configuration file"),
        (["all", config, "sed=2"], 2, "sed: unknown key; did you mean 'seed'?"),
        (["all", config, "sources.0.paths=[nowhere]", f"output={tmp_path}"], 3, "'nowhere' matches no"),
        (["split", config, f"output={tmp_path / 'new'}"], 3, "needs the outputs of ingest; run stage ingest first"),
        (["verify", config, f"output={tmp_path / 'new'}"], 3, "new/tokenizer: no tokenizer here"),
        (["all", config, f"output={config}"], 1, "config.yaml: File exists; mend it, or set output=FOLDER"),
        (
            ["all", config, "split.valid_share=1e-9", f"output={tmp_path / 'c'}"],
            3,
            "none of 60 documents fell into valid",
        ),
        (
            ["all", config, "tokenizer.vocab_size=9000", f"output={tmp_path / 'd'}"],
            3,
            "tokenizer.vocab_size=9000 does not",
        ),
    ]:
        result = invoke(*arguments)
        assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
        assert message in result.output
    assert isinstance(invoke("al", config, "--debug").exception, ValueError)


def test_verify_finds_a_flipped_byte_and_inspect_shows_the_shards(tmp_path):
    path = write_config(tmp_path)
    assert invoke("all", path).exit_code == 0
    shown = invoke("inspect", path)
    assert shown.exit_code == 0
    assert "solutions-train" in shown.output
    assert "<|prompt|>reverse" in shown.output
    data = tmp_path / "out" / "text-valid.bin"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    result = invoke("verify", path)
    assert result.exit_code == 3
    assert "text-valid.bin: SHA-256" in result.output


def test_two_preparations_do_not_share_a_folder(tmp_path):
    import fcntl

    path = write_config(tmp_path)
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = invoke("all", path)
    assert result.exit_code == 3
    assert "another data_prep is at work here" in result.output


def test_rare_characters_become_bytes_and_training_is_deterministic():
    sentences = [f"{word} é{chr(0x4E00 + index)}" for index in range(40) for word in WORDS]
    options = TokenizerConfig.model_validate({"vocab_size": 390, "character_coverage": 0.9})
    model = train_model(sentences, options)
    assert model == train_model(sentences, options)
    tokenizer = SentencePieceTokenizer(model)
    check_tokenizer(tokenizer)
    assert tokenizer.vocab_size == 390
    assert len(tokenizer.encode_characters(chr(0x4E00 + 39))) == 3


def test_transformers_reads_the_same_ids(tmp_path):
    pytest.importorskip("transformers")
    config = load_prep_config(write_config(tmp_path), ["tokenizer.export_transformers=true"])
    for stage in ("ingest", "synthesize", "split", "tokenizer"):
        run(stage, config)
    from transformers import AutoTokenizer

    folder = tmp_path / "out" / "tokenizer"
    exported, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    text = next(iter(read_documents(tmp_path / "out" / "documents" / "text.jsonl"))).text.split("\n")[0]
    assert exported(text)["input_ids"] == ours.encode(text)
    assert (exported.pad_token_id, exported.eos_token_id) == (ours.pad_id, ours.eos_id)
