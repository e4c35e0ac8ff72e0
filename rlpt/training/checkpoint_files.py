"""What makes a checkpoint folder trustworthy: its manifest, flushed files, and a look into Megatron's pickle.

`manifest.json`: {"format", "step", "meta", "files": {PATH: {"bytes", "sha256"}}, "sha256" of all this}. A folder is
good when the manifest is whole and every file has its size and hash; nothing of it is read before that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickletools
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpt.config import Config
from rlpt.errors import CheckpointError

MANIFEST, FORMAT = "manifest.json", 1
Entries = dict[str, dict[str, Any]]  # path within the folder -> its size and hash


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint was made with.

    A resume needs the same model, vocabulary, tokenizer and form of the optimizer's state; the rest may change. Who
    reads weights alone leaves `optimizer` empty, and it isn't compared.
    """

    model: dict[str, Any]  # shape of the model, by configuration key
    vocabulary: int  # tokens, before padding
    tokenizer: str  # hash of the tokenizer
    config: str  # sha256 of the resolved configuration
    layout: dict[str, int]  # sizes of the parallel axes
    optimizer: dict[str, Any] = field(default_factory=dict)  # what its state depends on, by configuration key

    @classmethod
    def of(
        cls,
        config: Config,
        vocabulary: int,
        tokenizer: str,
        layout: dict[str, int],
        heads: Sequence[str] | None = None,
    ) -> CheckpointMeta:
        """The meta of a run with this configuration, whose model has these heads; None: weights alone matter."""
        resolved = config.model_dump_json().encode()
        model = config.model.model_dump(exclude={"init_std"})
        optimizer: dict[str, Any] = {}
        if heads is not None:
            optimizer["parallel.distributed_optimizer"] = config.parallel.distributed_optimizer
            optimizer["heads that the objectives train"] = list(heads)
        return cls(model, vocabulary, tokenizer, hashlib.sha256(resolved).hexdigest(), dict(layout), optimizer)

    def differences(self, saved: CheckpointMeta) -> list[str]:
        """`key: was A, is B` for each thing that a resume can't change."""
        was, now = saved._fixed(), self._fixed()
        if saved.optimizer and self.optimizer:
            was, now = was | saved.optimizer, now | self.optimizer
        keys = sorted(was.keys() | now.keys())
        return [f"{k}: was {was.get(k)}, is {now.get(k)}" for k in keys if was.get(k) != now.get(k)]

    def _fixed(self) -> dict[str, Any]:
        model = {f"model.{key}": value for key, value in self.model.items()}
        return model | {"vocabulary": self.vocabulary, "tokenizer hash": self.tokenizer}


def write_manifest(folder: Path, step: int, meta: CheckpointMeta, entries: Entries) -> None:
    """Writes the manifest of all files below `folder`, and flushes it and the folders to the disk. Files that are not
    in `entries`, which their writers made, are hashed and flushed here."""
    own = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in entries]
    files = dict(sorted((entries | file_entries(folder, own)).items()))
    content = {"format": FORMAT, "step": step, "meta": dataclasses.asdict(meta), "files": files}
    manifest = content | {"sha256": _content_hash(content)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (folder / MANIFEST, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush(path)


def file_entries(folder: Path, paths: Sequence[Path]) -> Entries:
    """What the manifest of `folder` says of these files, which are flushed to the disk."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip((path.relative_to(folder).as_posix() for path in paths), pool.map(_entry, paths)))


def read_meta(folder: Path) -> CheckpointMeta:
    """The meta of a checkpoint's manifest. Raises CheckpointError when the manifest isn't whole."""
    return CheckpointMeta(**_read_manifest(folder)["meta"])


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder (the first thing found), or None: every file as it was written."""
    try:
        manifest = _read_manifest(folder)
    except CheckpointError as error:
        return str(error)

    def check(item: tuple[str, dict[str, Any]]) -> str | None:
        path, expected = folder / item[0], item[1]
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                return f"{path}: {size} bytes, the manifest says {expected['bytes']}"
            return None if _sha256(path) == expected["sha256"] else f"{path}: its contents changed (sha256 differs)"
        except OSError as error:
            return f"{path}: can't be read: {error.strerror}"

    with ThreadPoolExecutor(8) as pool:
        return next((found for found in pool.map(check, manifest["files"].items()) if found), None)


def flush(path: Path) -> None:
    """fsync of a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_pickle(path: Path) -> None:
    """Refuses a pickle that names anything but the records of torch's and Megatron's checkpoints.

    torch.distributed.checkpoint reads its `.metadata` with an unrestricted unpickler, which runs what it is told.
    The opcodes are listed here without running any. Raises CheckpointError.
    """
    try:
        data = path.read_bytes()
        names = _pickled_names(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint index: {error}; use another checkpoint") from None
    for module, name in names:
        allowed = _ALLOWED.get(module)
        if allowed is None or not allowed.fullmatch(name):
            raise CheckpointError(
                f"{path}: names {module}.{name}, which no checkpoint of ours holds; nothing of it was run. "
                "Use a checkpoint that you made yourself"
            )


_ALLOWED = {
    module: re.compile(pattern)
    for module, pattern in {
        "torch.distributed.checkpoint.metadata": "Metadata|MetadataIndex|StorageMeta|TensorProperties"
        "|_MEM_FORMAT_ENCODING|(Bytes|Chunk|Tensor)StorageMetadata",
        "torch.distributed.checkpoint.planner": "SavePlan|WriteItem|WriteItemType|TensorWriteData|BytesIOWriteData",
        "torch.distributed.checkpoint.filesystem": "_StorageInfo|_StoragePrefix",
        "megatron.core.dist_checkpointing.strategies.torch": "MCoreMetadata|MCoreSavePlan",
        "torch.serialization": "_get_layout",
        "torch": r"Size|bool|(uint|int|float|bfloat|complex)\d+(_e\dm\d\w*)?",
        "pathlib": "(Pure)?PosixPath",
        "pathlib._local": "(Pure)?PosixPath",
        "collections": "OrderedDict|defaultdict",
        "builtins": "set|frozenset|list|dict|tuple|int|float|complex|bool|str|bytes|bytearray|slice",
    }.items()
}
_GETATTR = ("builtins", "getattr")
_ENUMERATIONS = (
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.planner", "WriteItemType"),
)
_MEMO_WRITES = {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}
_MEMO_READS = {"GET", "BINGET", "LONG_BINGET"}
_FORBIDDEN = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ"}


Event = tuple[str, Any]  # ("text", string) | ("name", (module, name)) | ("opcode", its name)


def _pickled_names(data: bytes) -> list[tuple[str, str]]:
    """(module, name) of every global that a pickle imports, members of enumerations by `getattr` left out. Raises
    ValueError where that can't be told for sure."""
    events = _events(data)
    names = []
    for index, (kind, value) in enumerate(events):
        if kind == "name" and not (value == _GETATTR and _is_member(events[index + 1 : index + 5])):
            names.append(value)
    return names


def _events(data: bytes) -> list[Event]:
    """What the opcodes push, in order; reading from the memo counts as pushing again, writing to it is left out."""
    events: list[Event] = []
    memo: dict[int, Event] = {}
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name in _MEMO_WRITES:  # these leave the stack as it is
            if events:
                memo[len(memo) if opcode.name == "MEMOIZE" else int(str(argument))] = events[-1]
        elif opcode.name in _MEMO_READS:
            events.append(memo.get(int(str(argument)), ("opcode", opcode.name)))
        elif opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            events.append(("name", (module, name)))
        elif opcode.name == "STACK_GLOBAL":
            if [kind for kind, _ in events[-2:]] != ["text", "text"]:
                raise ValueError(f"a name at byte {position} is computed, not written")
            (_, module), (_, name) = events[-2:]
            events[-2:] = [("name", (module, name))]
        elif opcode.name in _FORBIDDEN:
            raise ValueError(f"opcode {opcode.name} at byte {position}")
        elif opcode.name.endswith("UNICODE") or opcode.name.endswith("UNICODE8"):
            events.append(("text", argument))
        elif opcode.name not in ("PROTO", "FRAME"):
            events.append(("opcode", opcode.name))
    return events


def _is_member(after: list[Event]) -> bool:
    """Whether `getattr` is called at once, on one of our enumerations for one of its members, and is used for nothing
    else: Python 3.11.0 to 3.11.3 pickle a member so, later ones by its value."""
    if len(after) != 4:
        return False
    (kind, enumeration), (named, member), *call = after
    return (
        (kind, enumeration) in [("name", one) for one in _ENUMERATIONS]
        and named == "text"
        and re.fullmatch("[A-Z][A-Z0-9_]*", member) is not None
        and call == [("opcode", "TUPLE2"), ("opcode", "REDUCE")]
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be read: {error}; use another checkpoint") from None
    content = {k: v for k, v in manifest.items() if k != "sha256"} if isinstance(manifest, dict) else {}
    if not content or manifest.get("sha256") != _content_hash(content):
        raise CheckpointError(f"{path}: its contents changed (sha256 differs); use another checkpoint")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {content['format']}, this version reads {FORMAT}")
    return content


def _content_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    flush(path)
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}
