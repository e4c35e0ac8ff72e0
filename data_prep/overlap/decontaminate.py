"""Documents that hold what evaluation asks: word n-grams of evaluation sets, and prompts of held-out problems.

Evaluation sets are in memory, as sorted 64-bit hashes of their n-grams; the corpus streams by. As in GPT-3 (Brown et
al. 2020, 2005.14165, appendix C), words are compared without case and punctuation, and n is 13, or the length of an
evaluation text that has 8 to 12 words; even shorter ones would be found everywhere, so they must be a whole document.
Held-out problems of tasks are known by their prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from data_prep.documents import Document, decode_utf8, parse_object, read_lines, text_of
from data_prep.overlap.words import BATCH, Words, batches, pieces, words_of
from data_prep.sources.bad_records import BadRecords
from rlpt.config_objectives import Section, Spec
from rlpt.errors import ConfigError, DataError
from rlpt.registry import suggest
from rlpt.tasks.base import create_task, evaluation_seed
from rlpt.template import PROMPT, SPECIAL_TOKENS

_LONGEST_LINE = 64 << 20  # bytes of an evaluation set's line
_SLOTS = 16  # of the first filter, for each n-gram: one document n-gram in 16 is looked up
_PROMPTS = re.compile(f"{re.escape(PROMPT)}(.*?)(?:{'|'.join(map(re.escape, SPECIAL_TOKENS))}|$)", re.DOTALL)
_PARAGRAPH = re.compile(r"\S.*?(?=\n[ \t]*\n|\Z)", re.DOTALL)


class EvaluationFile(Section):
    """An evaluation set on disk."""

    path: Path = Field(description="JSONL, or text: a paragraph is an evaluation text there")
    keys: list[str] = Field(
        default_factory=list, description="of each JSONL object: strings, or lists of them, to look for; [] for text"
    )

    @model_validator(mode="after")
    def _keys_of_jsonl(self) -> EvaluationFile:
        if (self.path.suffix == ".jsonl") != bool(self.keys):
            raise ValueError(
                f"'{self.path}': name the keys of a .jsonl file that hold evaluation text, and of no other"
            )
        return self


class EvaluationProblems(Section):
    """Held-out problems of one task at one level, those that evaluation draws."""

    task: Spec = Field(description="{name: sort, **options}")
    level: int = Field(ge=0)
    problems: int = Field(
        ge=1, description="how many, from the first: evaluation.problems of the training run, or more"
    )


class DecontaminateConfig(Section):
    """What must not be in the corpus."""

    files: list[EvaluationFile] = Field(default_factory=list)
    tasks: list[EvaluationProblems] = Field(default_factory=list)
    ngram: int = Field(13, ge=1, description="words in a row that are too many to have in common")
    shortest: int = Field(
        8, ge=1, description="an evaluation text with fewer words is only looked for as a whole document"
    )
    share: float = Field(0.0, ge=0, lt=1, description="share of a document's n-grams that may be evaluation's; 0: none")

    @model_validator(mode="after")
    def _shorter_than_ngram(self) -> DecontaminateConfig:
        if self.shortest > self.ngram:
            raise ValueError(f"shortest={self.shortest} is above ngram={self.ngram}; no text is both")
        return self


@dataclass(frozen=True)
class _Hashes:
    """A set of hashes, each with where it is from. A bit table answers for most that are not in it."""

    hashes: np.ndarray  # [n] u64, sorted, distinct
    labels: np.ndarray  # [n] i64
    may_be: np.ndarray  # [2^(64 - shift)] bool, by a hash's highest bits
    shift: np.uint64

    def label_of(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of hashes [k] u64: the indices [m] i64 of those that are in the set, ascending, and their labels [m]."""
        likely = np.flatnonzero(self.may_be.take((hashes >> self.shift).astype(np.int64)))
        at = np.searchsorted(self.hashes, hashes[likely])
        is_in = self.hashes.take(at, mode="clip") == hashes[likely]
        return likely[is_in], self.labels.take(at[is_in])


@dataclass(frozen=True)
class _Scan:
    """What was found in each of a batch's texts; labels are -1 where nothing was."""

    hits: np.ndarray  # [texts] i64: its n-grams that are evaluation's
    runs: np.ndarray  # [texts] i64: its n-grams
    long: np.ndarray  # [texts] i64: label of the first of `hits`
    short: np.ndarray  # [texts] i64: label of an evaluation text that is shorter than the n-gram

    @classmethod
    def joined(cls, scans: Sequence[_Scan]) -> _Scan:
        """Of one text, from the scans of its pieces in order."""
        hits, runs = (sum(getattr(scan, name) for scan in scans) for name in ("hits", "runs"))
        firsts = (
            next((labels for scan in scans if (labels := getattr(scan, name))[0] >= 0), np.array([-1]))
            for name in ("long", "short")
        )
        return cls(hits, runs, *firsts)


class Evaluations:
    """All that is looked for."""

    def __init__(
        self, config: DecontaminateConfig, texts: Iterable[tuple[str, str]], prompts: Mapping[str, str]
    ) -> None:
        """`texts` are (where from, text); `prompts` are prompt -> where from."""
        self._ngram, self._shortest, self._share = config.ngram, config.shortest, config.share
        self._names: list[str] = []
        self._prompts: dict[str, str] = {}
        for prompt, where in prompts.items():
            self._prompts.setdefault(_one_line(prompt), where)
        found: dict[int, list[tuple[np.ndarray, int]]] = {}  # words a run -> hashes and their label
        whole: list[tuple[np.ndarray, int]] = []
        for where, text in texts:
            label = len(self._names)
            self._names.append(where)
            parts = [words_of([part]) for part in pieces(text, config.ngram)]
            count = sum(int(words.counts()[0]) for words in parts)
            if count >= config.shortest:
                size = min(count, config.ngram)
                found.setdefault(size, []).extend((words.runs(size)[0], label) for words in parts)
            elif count:
                whole.extend((words.whole(), label) for words in parts)
        self._runs = {size: _collect(hashes) for size, hashes in sorted(found.items())}
        self._whole = _collect(whole)

    @classmethod
    def load(cls, config: DecontaminateConfig) -> Evaluations:
        """Reads the files and draws the problems. Raises DataError `file:line: reason` for a file that can't be read,
        ConfigError for a task, option or level that is not there."""
        import rlpt.tasks  # noqa: F401 - registers the families

        return cls(config, (pair for file in config.files for pair in _read(file)), _prompts_of(config.tasks))

    def found(self, document: Document) -> str | None:
        """`ngram:FILE:LINE` or `problem:TASK/LEVEL/SEED` where the document holds evaluation's; None: it may stay."""
        return next(reason for _, reason in self.check([document]))

    def check(self, documents: Iterable[Document]) -> Iterator[tuple[Document, str | None]]:
        """Each document, in order, with its `found`; a batch is looked up at once."""
        waiting: list[Document] = []  # given to the current batch

        def texts() -> Iterator[str]:
            for document in documents:
                waiting.append(document)
                yield document.text

        for batch in batches(texts()):
            reasons = self._in_batch(batch)
            yield from zip(waiting[: len(batch)], reasons, strict=True)
            del waiting[: len(batch)]

    def _in_batch(self, texts: Sequence[str]) -> list[str | None]:
        if len(texts) == 1 and len(texts[0]) > BATCH:
            scans = [self._scan(words_of([part])) for part in pieces(texts[0], self._ngram)]
            labels = self._labels(_Scan.joined(scans))
        else:
            words = words_of(texts)
            labels = self._labels(self._scan(words))
            short = np.flatnonzero(words.counts() < self._shortest)
            at, label = self._whole.label_of(words.whole()[short])
            labels[short[at]] = label
        reasons = [f"ngram:{self._names[label]}" if label >= 0 else None for label in labels.tolist()]
        return [reason or self._problem(text) for text, reason in zip(texts, reasons, strict=True)]

    def _scan(self, words: Words) -> _Scan:
        count = len(words.counts())
        scan = _Scan(*(np.full(count, value, dtype=np.int64) for value in (0, 0, -1, -1)))
        for size, known in self._runs.items():
            hashes, offsets = words.runs(size)
            at, label = known.label_of(hashes)
            text = np.searchsorted(offsets, at, side="right") - 1
            if size == self._ngram:
                scan.hits[:], scan.runs[:] = np.bincount(text, minlength=count), np.diff(offsets)
            of_size = scan.long if size == self._ngram else scan.short
            of_size[text[::-1]] = label[::-1]  # the first of a text is written last, so it stays
        return scan

    def _labels(self, scan: _Scan) -> np.ndarray:
        is_long = (scan.hits > 0) & (scan.hits > self._share * scan.runs)
        return np.where(is_long, scan.long, scan.short)

    def _problem(self, text: str) -> str | None:
        if self._prompts and PROMPT in text:
            for match in _PROMPTS.finditer(text):
                if where := self._prompts.get(_one_line(match[1])):
                    return where
        return None


def _one_line(prompt: str) -> str:
    return " ".join(prompt.split())


def _collect(found: Sequence[tuple[np.ndarray, int]]) -> _Hashes:
    hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *(hashes for hashes, _ in found)])
    labels = np.repeat(
        np.array([label for _, label in found], dtype=np.int64),
        np.array([len(hashes) for hashes, _ in found], dtype=int),
    )
    hashes, first = np.unique(hashes, return_index=True)
    bits = max(16, (_SLOTS * len(hashes)).bit_length())
    shift = np.uint64(64 - bits)
    may_be = np.zeros(1 << bits, dtype=bool)
    may_be[(hashes >> shift).astype(np.int64)] = True
    return _Hashes(hashes, labels[first], may_be, shift)


def _read(file: EvaluationFile) -> Iterator[tuple[str, str]]:
    """(NAME:LINE, text) of each evaluation text. Raises DataError."""
    path = file.path
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*")) if path.parent.is_dir() else []
        raise DataError(f"{path}: no such evaluation set{suggest(path.name, near)}; correct decontaminate.files")
    if not file.keys:
        text, line, before = decode_utf8(path.read_bytes(), str(path)), 1, 0
        for match in _PARAGRAPH.finditer(text):
            line += text.count("\n", before, match.start())
            before = match.start()
            yield f"{path.name}:{line}", match[0]
        return
    with open(path, "rb") as stream:
        for number, data in read_lines(stream, _LONGEST_LINE, str(path), BadRecords()):
            record = parse_object(data, where := f"{path}:{number}")
            for key in file.keys:
                value = record.get(key)
                for item in value if isinstance(value, list) else [value]:
                    read = {**record, key: item} if key in record else record
                    yield f"{path.name}:{number}", text_of(read, key, where)


def _prompts_of(tasks: Sequence[EvaluationProblems]) -> dict[str, str]:
    """Prompt -> problem:TASK/LEVEL/SEED of every held-out problem; of equal ones, the first."""
    prompts: dict[str, str] = {}
    for index, entry in enumerate(tasks):
        where = f"decontaminate.tasks.{index}"
        task = create_task(entry.task, f"{where}.task")
        if entry.level > task.max_level:
            raise ConfigError(f"{where}.level: {entry.level} is outside 0..{task.max_level} of task '{task.name}'")
        for problem in range(entry.problems):
            drawn = task.sample(evaluation_seed(problem), entry.level)
            prompts.setdefault(drawn.prompt, f"problem:{task.name}/{entry.level}/{drawn.seed}")
    return prompts
