"""Where the stages' files are, below the output folder."""

from __future__ import annotations

from pathlib import Path

SOLUTIONS = "solutions"  # name of the worked solutions among the sources
SPLITS = ("train", "valid")


def logs_path(out: Path) -> Path:
    """Where the logs of tasks on a cluster go: beside the output folder, absolute."""
    return out.resolve().with_name(f"{out.name}-logs")


def part_name(name: str, index: int) -> str:
    """`text/00003`: the name of a part of a source or a shard."""
    return f"{name}/{index:05}"


def documents_path(out: Path, name: str, index: int) -> Path:
    """Documents as they were read or made."""
    return out / "documents" / f"{part_name(name, index)}.jsonl"


def clean_path(out: Path, name: str, index: int) -> Path:
    """Documents after cleaning."""
    return out / "clean" / f"{part_name(name, index)}.jsonl"


def signatures_path(out: Path, name: str, index: int) -> Path:
    """Hashes by which duplicates are found."""
    return out / "signatures" / f"{part_name(name, index)}.records"


def duplicates_path(out: Path, partition: int) -> Path:
    """Which documents repeat earlier ones, of one partition of the hashes."""
    return out / "duplicates" / f"{partition:05}.records"


def contaminated_path(out: Path, name: str, index: int) -> Path:
    """Which documents hold evaluation problems, and which."""
    return out / "contaminated" / f"{part_name(name, index)}.json"


def split_path(out: Path, name: str, side: str, index: int) -> Path:
    """Documents that are kept, by side."""
    return out / "split" / f"{part_name(f'{name}-{side}', index)}.jsonl"


def sample_path(out: Path, name: str, index: int) -> Path:
    """Texts that the tokenizer may be trained on."""
    return out / "sample" / f"{part_name(name, index)}.jsonl"


def encoded_path(out: Path, shard: str, index: int) -> Path:
    """Prefix of a part of a shard."""
    return out / "encoded" / part_name(shard, index)
