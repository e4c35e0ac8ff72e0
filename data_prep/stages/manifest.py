"""Stage manifest: what the shards hold and where it comes from -> manifest.json, written last."""

from __future__ import annotations

from functools import partial
from typing import Any

from data_prep.config import PrepConfig
from data_prep.layout import SOLUTIONS
from data_prep.plan import Plan
from data_prep.work import Figures, Unit
from rlpt.data.manifest import MANIFEST, Manifest, ShardEntry, write_manifest
from rlpt.data.tokenizer import load_tokenizer


def units(plan: Plan) -> list[Unit]:
    """One."""
    inputs = described(plan.config)
    return [Unit("manifest", partial(_write, plan), (plan.out / MANIFEST,), inputs)]


def described(config: PrepConfig) -> dict[str, Any]:
    """The configuration that decides what is written, without where."""
    return config.model_dump(mode="json", exclude={"output"})


def _write(plan: Plan) -> Figures:
    tokenizer = load_tokenizer(plan.out / "tokenizer")
    shards = {shard: ShardEntry(**plan.figures["merge"][shard]) for shard in plan.shards()}
    sources = {source.name: _source(plan, source.name) for source in plan.config.sources}
    for source in plan.config.sources:
        sources[source.name] |= {"licence": source.licence, "provenance": source.provenance}
    if plan.chunks:
        sources[SOLUTIONS] = _source(plan, SOLUTIONS)
    manifest = Manifest(
        tokenizer.sha256, tokenizer.vocab_size, plan.config.seed, described(plan.config), shards, sources
    )
    write_manifest(plan.out, manifest)
    return {"shards": len(shards), "tokens": sum(entry.tokens for entry in shards.values())}


def _source(plan: Plan, name: str) -> dict[str, Any]:
    """Documents that were read, left out by reason, and changed."""
    made = "synthesize" if name == SOLUTIONS else "ingest"
    dropped = plan.reasons("clean", "dropped", name) | plan.reasons("split", "dropped", name)
    return {
        "read": plan.total(made, "documents", name),
        "skipped": plan.total(made, "skipped", name),
        "dropped": dropped,
        "changed": plan.reasons("clean", "changed", name),
        "train": plan.total("split", "train", name),
        "valid": plan.total("split", "valid", name),
    }
