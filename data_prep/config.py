"""The configuration of a preparation, typed and strict."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from data_prep.cleaning.cleaner import CleanConfig
from data_prep.layout import SOLUTIONS
from data_prep.overlap.decontaminate import DecontaminateConfig
from data_prep.overlap.minhash import DedupConfig
from data_prep.sources.look_ups import LookUpsConfig
from data_prep.styles import LEVEL_WEIGHTS_HELP, STYLES_HELP, LevelWeights, StyleWeights
from rlpt.config import Section, Spec
from rlpt.config_files import apply_overrides, load_yaml, unknown_keys
from rlpt.errors import ConfigError
from rlpt.registry import describe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
Kind = Literal["auto", "txt", "md", "py", "code", "jsonl", "parquet", "warc"]


class SourceConfig(Section):
    """One text corpus: files, the interpreter's own library, a data set of the hub, or documents made by a rule."""

    name: str = Field(description="shards are called NAME-train and NAME-valid")
    paths: list[str] = Field(default_factory=list, description="files, folders (searched in depth) and glob patterns")
    python_library: bool = Field(False, description="the running interpreter's standard library, without its tests")
    hub: str = Field("", description="a data set that `datasets.load_dataset` finds (needs network, or a local folder)")
    hub_config: str | None = Field(None, description="configuration of the hub's data set")
    hub_split: str = Field("train", description="split of the hub's data set")
    look_ups: LookUpsConfig | None = Field(None, description="made up: facts, and questions about them")
    kind: Kind = Field("auto", description="format of `paths`, inside archives and .gz and .zst; auto: by suffix")
    text_key: str = Field("text", description="key or column that holds the text (jsonl, parquet, hub)")
    exclude: list[str] = Field(default_factory=list, description="folder or file names that are left out")
    max_bytes: int | None = Field(None, ge=1, description="stop before more text than this, in UTF-8 bytes")
    max_document_bytes: int = Field(64 << 20, ge=1, description="a longer text file, line, row or record is an error")
    max_expansion: int = Field(
        1000, ge=0, description="a file that grows to more than this times its compressed bytes is an error; 0: any may"
    )
    part_bytes: int = Field(64 << 20, ge=1, description="files are read in parts of at least this many bytes")
    licence: str = Field("", description="of the texts, for the manifest")
    provenance: str = Field("", description="where the texts are from, for the manifest")

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or value == SOLUTIONS:
            raise ValueError(f"'{value}' is no name for a shard; use letters, digits, . _ - (and not '{SOLUTIONS}')")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> SourceConfig:
        if bool(self.paths) + self.python_library + bool(self.hub) + (self.look_ups is not None) != 1:
            raise ValueError(f"source '{self.name}': give exactly one of paths, python_library, hub and look_ups")
        return self


class SynthesizedTask(Section):
    """Worked solutions of one task, spread evenly over its levels."""

    task: Spec = Field(description="{name: sort, **options}")
    levels: Annotated[list[int], Field(min_length=1)]
    documents: int = Field(ge=1, description="solutions of this task")
    level_weights: LevelWeights = Field(default_factory=list, description=LEVEL_WEIGHTS_HELP)
    styles: StyleWeights | None = Field(None, description="of this task's traces, in place of synthesize.styles")


class SynthesizeConfig(Section):
    """Worked solutions as text."""

    tasks: list[SynthesizedTask] = Field(default_factory=list)
    trace_share: float = Field(
        1.0, ge=0, le=1, description="share of documents with the worked steps between prompt and answer"
    )
    styles: StyleWeights = Field({"steps": 1.0}, description=STYLES_HELP)


class SplitConfig(Section):
    """Which documents are held out: a hash of the text decides, or of what a made-up one is about, so that equal ones,
    and those about the same thing, are on the same side."""

    valid_share: float = Field(0.02, gt=0, lt=1, description="share of documents that are held out")


class TokenizerConfig(Section):
    """SentencePiece BPE with byte pieces, single digits and single ASCII characters; or one that exists, and then no
    other key."""

    existing: str = Field(
        "", description="a folder or hub name for transformers' AutoTokenizer, in place of training one"
    )
    vocab_size: int = Field(512, ge=384, description="tokens, marks and byte pieces included")
    words: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{2,}$")]] = Field(
        default_factory=list, description="texts that are one token wherever they stand, e.g. names of tasks in prompts"
    )
    sample_bytes: int = Field(4 << 20, ge=1, description="training text that it is trained on")
    sample_solutions: int = Field(2000, ge=0, description="prompts of solutions that it is trained on")
    character_coverage: float = Field(
        0.9995,
        gt=0,
        le=1,
        description="share of the sample's characters that get tokens of their own; others are bytes",
    )
    export_transformers: bool = Field(False, description="also write tokenizer.json for transformers' AutoTokenizer")

    @model_validator(mode="after")
    def _trained_or_existing(self) -> TokenizerConfig:
        given = sorted(self.model_fields_set - {"existing"})
        if self.existing and given:
            keys = ", ".join(f"tokenizer.{key}" for key in given)
            raise ValueError(f"{keys}: for training a tokenizer, which tokenizer.existing={self.existing} replaces")
        return self


class PrepConfig(Section):
    """A whole preparation."""

    name: str = Field("data", description="the corpus's name")
    output: Path | None = Field(None, description="where everything is written; default runs/data/NAME")
    seed: int = Field(1, ge=0)
    sources: Annotated[list[SourceConfig], Field(min_length=1)]
    skip_bad: int = Field(
        0, ge=0, description="bad records of a source that are left out and counted; 0: the first ends it"
    )
    clean: CleanConfig | None = Field(
        None, description="what text documents are dropped or changed for; off without it"
    )
    dedup: DedupConfig | None = Field(None, description="text documents that repeat earlier ones are dropped")
    decontaminate: DecontaminateConfig | None = Field(
        None, description="documents that hold evaluation problems are dropped"
    )
    synthesize: SynthesizeConfig = SynthesizeConfig.model_validate({})
    split: SplitConfig = SplitConfig.model_validate({})
    tokenizer: TokenizerConfig = TokenizerConfig.model_validate({})

    @model_validator(mode="after")
    def _distinct(self) -> PrepConfig:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: '{twice[0]}' names two sources; give each its own name")
        return self

    @property
    def directory(self) -> Path:
        """The output folder."""
        return self.output if self.output is not None else Path("runs/data") / self.name


def load_prep_config(path: Path, overrides: Iterable[str] = ()) -> PrepConfig:
    """YAML + dotted overrides -> PrepConfig. Raises ConfigError that names every wrong key at once."""
    values = apply_overrides(load_yaml(path), overrides)
    unknown = list(unknown_keys(PrepConfig, values, ""))
    try:
        config = PrepConfig.model_validate(values)
    except ValidationError as error:
        bad = {line.split(":")[0] for line in unknown}
        others = [line for line in describe(error).splitlines() if line.split(":")[0] not in bad]
        raise ConfigError("\n".join([f"{path}:", *unknown, *others])) from None
    return config


def fingerprint(*values: Any) -> str:
    """Hex hash of JSON-able values and sections: equal values, equal hash."""
    plain = [value.model_dump(mode="json") if isinstance(value, BaseModel) else value for value in values]
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()
