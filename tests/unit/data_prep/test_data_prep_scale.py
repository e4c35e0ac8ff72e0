"""A preparation at its full size: killed at random moments, by any number of workers, and in flat memory."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "data" / "reasoning.yaml"
KILLS = 10
# A process counts what its parent held when it began, so the parent must be small.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
pytestmark = pytest.mark.slow


def command(out, workers, *overrides, config=CONFIG):
    arguments = ["all", str(config), f"output={out}", "--workers", str(workers), *overrides]
    return [sys.executable, "-m", "data_prep", *arguments]


def tree(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def finished(folder):
    return len(list(folder.rglob(".stages/**/*.json")))


def test_200_000_problems_come_out_the_same_whatever_kills_the_run(tmp_path):
    """SIGKILL at ten random moments, spread over a run with two workers, against an undisturbed one with one."""
    subprocess.run(command(tmp_path / "whole", 1), check=True, capture_output=True, cwd=ROOT)
    rng, units = random.Random(7), finished(tmp_path / "whole")
    for kill in range(KILLS):
        process = subprocess.Popen(
            command(tmp_path / "killed", 2), cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        while finished(tmp_path / "killed") < units * (kill + rng.random()) / KILLS and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.random())
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with {finished(tmp_path / 'killed')} of {units} parts finished")
    subprocess.run(command(tmp_path / "killed", 2), check=True, capture_output=True, cwd=ROOT)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_memory_is_flat_in_the_size_of_the_corpus(tmp_path):
    """Peak memory of the largest process, at 1 and at 10 times the text and the solutions."""
    rng, words = random.Random(3), [f"{a}{b}" for a in "bcdfglmnprst" for b in "aeiou"]
    vocabulary = ["".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(20_000)]
    peaks = {}
    for size in (1, 10):
        folder = tmp_path / str(size)
        folder.mkdir()
        for index in range(3 * size):
            with open(folder / f"{index:02}.jsonl", "w") as file:
                for _ in range(12_000):
                    file.write(json.dumps({"text": " ".join(rng.choices(vocabulary, k=80))}) + "\n")
        config = {
            "sources": [{"name": "text", "paths": [str(folder / "*.jsonl")], "part_bytes": 1 << 22}],
            "clean": {"unicode": "NFC", "min_words": 5},
            "dedup": {"near": True},
            "synthesize": {"tasks": [{"task": {"name": "sort"}, "levels": [1, 2], "documents": 30_000 * size}]},
            "tokenizer": {"vocab_size": 1024},
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(config))
        measured = [sys.executable, "-c", PEAK, *command(folder / "out", 1, config=path)]
        peaks[size] = int(subprocess.run(measured, check=True, cwd=ROOT, capture_output=True).stdout) / 1024
    print(f"peak memory: {peaks[1]:.0f} MB, at ten times the corpus {peaks[10]:.0f} MB")
    assert peaks[10] < 1.2 * peaks[1]
