"""The whole preparation on a few files: outputs, restart, errors on the command line, and the parts in between."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from data_prep import __main__ as command_line
from data_prep.config import TokenizerConfig, load_prep_config
from data_prep.documents import Document, read_documents
from data_prep.inspection.terminal import BOUNDARY
from data_prep.pipeline import NAMES, STAGES, Share, run
from data_prep.stages.split import is_valid
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

    lines = (prepared / "out" / "documents" / "solutions" / "00000.jsonl").read_text().splitlines()
    lines += (prepared / "out" / "documents" / "solutions" / "00001.jsonl").read_text().splitlines()
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
        return {name for name in STAGES if any(line.startswith(f"{name}: done") for line in lines)}

    assert done("all") == set(STAGES) - {"clean", "sign", "dedup", "decontaminate"}
    first = (tmp_path / "out" / "manifest.json").read_bytes()
    assert done("all") == set()
    assert (tmp_path / "out" / "manifest.json").read_bytes() == first
    assert done("all", "tokenizer.vocab_size=410") == {"tokenizer", "encode", "merge", "manifest"}
    assert read_manifest(tmp_path / "out").vocab_size == 410
    later = {"synthesize", "split", "sample", "tokenizer", "encode", "merge", "manifest"}
    assert done("all", "tokenizer.vocab_size=410", "synthesize.trace_share=0") == later
    (tmp_path / "out" / "text-train.bin").unlink()
    assert done("all", "tokenizer.vocab_size=410", "synthesize.trace_share=0") == {"merge", "manifest"}
    with pytest.raises(DataError, match="stage encode needs the outputs of synthesize"):
        done("encode")
    assert done("all") == later
    assert (tmp_path / "out" / "manifest.json").read_bytes() == first


def test_a_damaged_part_is_found_and_the_shards_stay_as_they_were(tmp_path):
    config = load_prep_config(write_config(tmp_path))
    run("all", config)
    out = tmp_path / "out"
    (out / ".stages" / "encode" / "text-valid" / "00000.json").unlink()
    bad = out / "split" / "text-valid" / "00000.jsonl"
    bad.write_bytes(b"x" * bad.stat().st_size)
    with pytest.raises(DataError, match=r"00000\.jsonl:1: malformed JSON"):
        run("encode", config)
    assert not list(out.rglob("*.tmp"))
    run("verify", config)


def tree(folder):
    """Every file's content but the lock's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


SECTIONS = {
    "clean": {"unicode": "NFC", "min_words": 5},
    "dedup": {"near": True},
    "decontaminate": {"tasks": [{"task": {"name": "reverse"}, "level": 0, "problems": 16}]},
}


def many_parts(folder, **sections):
    """The same corpus in parts of a few files, some of which say the same."""
    path = write_config(folder, **sections)
    values = json.loads(path.read_text())
    values["sources"][0]["part_bytes"] = 5000
    for index in (7, 41):
        text = (folder / "text" / "03.txt").read_text()
        (folder / "text" / f"{index:02}.txt").write_text(text if index == 7 else text.replace("the", "The", 1))
    path.write_text(json.dumps(values))
    return path


def test_any_number_of_workers_and_tasks_gives_the_same_bytes(tmp_path):
    path = many_parts(tmp_path, **SECTIONS)
    for name, workers in (("one", 1), ("three", 3)):
        run("all", load_prep_config(path, [f"output={tmp_path / name}"]), workers)
    config = load_prep_config(path, [f"output={tmp_path / 'shared'}"])
    for stage in STAGES:
        for index in reversed(range(3)):
            run(stage, config, 1, Share(index, 3))
    assert len(list((tmp_path / "one" / "documents" / "text").iterdir())) > 3
    assert tree(tmp_path / "one") == tree(tmp_path / "three") == tree(tmp_path / "shared")


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    config = load_prep_config(many_parts(tmp_path, **SECTIONS))
    run("all", config, 2)
    source = read_manifest(config.directory).sources["text"]
    assert source["read"] == 60
    assert source["dropped"]["duplicate_exact"] == 1
    assert source["dropped"]["duplicate_near"] == 1
    assert source["train"] + source["valid"] == 60 - sum(source["dropped"].values())
    texts = [*documents_of(tmp_path, "text-train"), *documents_of(tmp_path, "text-valid")]
    assert len(texts) == len(set(texts)) == source["train"] + source["valid"]
    solutions = read_manifest(config.directory).sources["solutions"]
    assert solutions["dropped"]["contaminated_problem"] > 0  # `reverse` has few problems at level 0
    assert solutions["train"] == 30 - sum(solutions["dropped"].values())


def test_a_share_is_of_one_phase(tmp_path):
    path = write_config(tmp_path)
    result = invoke("all", path, "--task", "0/2")
    assert result.exit_code == 2
    assert "a share is of one phase; name one of ingest, synthesize" in result.output


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL at random moments, with two workers, until it has come through."""
    path = many_parts(tmp_path, **SECTIONS)
    whole = load_prep_config(path, [f"output={tmp_path / 'whole'}"])
    started = time.monotonic()
    run("all", whole, 1)
    seconds, rng = time.monotonic() - started, random.Random(5)
    command = [sys.executable, "-m", "data_prep", "all", str(path), f"output={tmp_path / 'killed'}", "--workers", "2"]
    for _ in range(4):
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(0.5, 0.5 + seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_a_full_disk_is_told_of_and_finished_parts_stay(tmp_path):
    """A limit on the size of files stands for a disk that fills up while shards are merged."""
    path = many_parts(tmp_path)
    command = [sys.executable, "-m", "data_prep", "all", str(path), "--workers", "1"]

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))

    stopped = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True)
    assert stopped.returncode == 1
    assert "File too large; what was finished stays: mend it and run again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ingest: up to date" in done.stderr


def invoke(*arguments):
    return CliRunner().invoke(command_line.app, [str(argument) for argument in arguments])


def test_command_line_errors_are_one_line_with_their_exit_code(tmp_path, prepared):
    config = prepared / "config.yaml"
    assert {*command_line.STAGE_HELP, *command_line.PHASES} == set(NAMES)
    for arguments, code, message in [
        (["al", config], 2, "error: unknown stage 'al'; did you mean 'all'?"),
        (["all", tmp_path / "no.yaml"], 2, "no such configuration file"),
        (["all", config, "sed=2"], 2, "sed: unknown key; did you mean 'seed'?"),
        (["all", config, "sources.0.paths=[nowhere]", f"output={tmp_path}"], 3, "'nowhere' matches no"),
        (
            ["split", config, f"output={tmp_path / 'new'}"],
            3,
            "needs the outputs of ingest (text/00000 is missing or stale)",
        ),
        (["verify", config, f"output={tmp_path / 'new'}"], 3, "new/tokenizer: no tokenizer here"),
        (
            ["all", config, f"output={config}"],
            1,
            "config.yaml: File exists; what was finished stays: mend it and run again",
        ),
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
    assert "<|prompt|>reverse" in shown.output.replace(BOUNDARY, "")
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
    text = next(iter(read_documents(tmp_path / "out" / "documents" / "text" / "00000.jsonl"))).text.split("\n")[0]
    assert exported(text)["input_ids"] == ours.encode(text)
    assert (exported.pad_token_id, exported.eos_token_id) == (ours.pad_id, ours.eos_id)
