"""Opens each objective's algorithm and source from the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import rlpt.rollout  # noqa: F401 (registers the sources of episodes)
from rlpt import registry
from rlpt.algorithms.base import Algorithm
from rlpt.batch import Batch, BatchSource, Scores, SourceContext
from rlpt.config import Config
from rlpt.errors import ConfigError
from rlpt.models.snapshots import Snapshots
from rlpt.rollout.generator import PolicyGenerator
from rlpt.training.runtime import Runtime, create_algorithms
from rlpt.types import Completion, Generator, SamplingParams

PLAYING = ("episodes",)  # sources that give rewards
WAITING_FOR_NONE = ("corpus", "demonstrations")  # sources that neither play nor look at what others took
ROW_MULTIPLE = 8  # of the lengths of packed rows: what matrix units like


@dataclass(frozen=True)
class PastSelf:
    """A named copy of the weights as a Generator."""

    generator: Generator
    snapshots: Snapshots
    name: str

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """See `types.Generator`."""
        with self.snapshots.using(self.name):
            return self.generator(prompts, params, keys)


@dataclass(frozen=True)
class Stream:
    """One objective at work."""

    algorithm: Algorithm
    source: BatchSource


def open_streams(runtime: Runtime, snapshots: Snapshots) -> dict[str, Stream]:
    """Every objective's algorithm with its open source. Raises ConfigError or DataError."""
    config, mesh = runtime.config, runtime.mesh
    past = PolicyGenerator(runtime.policy)  # one of its own: nothing is trained while the weights are other ones
    streams: dict[str, Stream] = {}
    for name, algorithm in create_algorithms(config).items():
        spec = config.objectives[name].source
        options = registry.create("source", spec, f"objectives.{name}.source")
        check_pair(config, name, algorithm)
        context = SourceContext(
            objective=name,
            tokenizer=runtime.tokenizer,
            sequence_length=config.batch.sequence_length,
            micro_batch_size=config.batch.micro_batch_size,
            data_rank=mesh.data.rank,
            data_size=mesh.data.size,
            seed=config.seed,
            gather=mesh.data.gather_objects,
            agree=lambda value: mesh.tensor.gather_objects(value)[0],
            row_multiple=math.lcm(ROW_MULTIPLE, mesh.tensor.size),
            scores_silent=config.bilevel is not None and name == config.bilevel.lower,
            algorithm=algorithm,
            generator=runtime.generator,
            chooser=runtime.chooser,
            past=lambda: {one: PastSelf(past, snapshots, one) for one in snapshots.names()},
            steps=config.objectives[name].active_steps(config.schedule.steps),
            run_steps=config.schedule.steps,
            microbatches_at=config.objectives[name].microbatches_at,
            score=_score(runtime, snapshots),
            reference=config.objectives[name].reference,
            snapshots=tuple(config.snapshots),
            heads=runtime.heads,
            sources={other: stream.source for other, stream in streams.items()},
            directory=config.directory if mesh.is_primary else None,
        )
        streams[name] = Stream(algorithm, options.open(context))
    return streams


def check_pair(config: Config, name: str, algorithm: Algorithm) -> None:
    """Raises ConfigError where algorithm, source and reference do not go together."""
    objective = config.objectives[name]
    kind, source = objective.algorithm["name"], objective.source["name"]
    wanted = "rewards" if algorithm.uses_rewards or not algorithm.uses_targets else "what a search chose"
    plays = algorithm.uses_rewards or algorithm.uses_targets
    if plays != (source in PLAYING):
        raise ConfigError(
            f"objectives.{name}: algorithm '{kind}' {'needs' if plays else 'does not take'} {wanted}, "
            f"which source '{source}' {'does not give' if plays else 'gives'}"
        )
    if algorithm.needs_reference and not objective.reference:
        raise ConfigError(
            f"objectives.{name}.reference: the algorithm's KL term needs a snapshot to refer to; name one, e.g. "
            f"objectives.{name}.reference=start with snapshots.start={{update: never}} (the weights as they are at its "
            "start_step; of an untrained model that is noise) or {update: ema}"
        )
    if algorithm.needs_reference:
        snapshot = config.snapshots[objective.reference]
        if snapshot.update == "pool":
            raise ConfigError(
                f"objectives.{name}.reference: '{objective.reference}' is a pool of copies, the KL term refers to one; "
                "name a snapshot of another update"
            )
        if snapshot.start_step > objective.first_step:
            raise ConfigError(
                f"objectives.{name}.reference: snapshot '{objective.reference}' is first taken before step "
                f"{snapshot.start_step}, and the objective starts at step {objective.first_step}; lower "
                f"snapshots.{objective.reference}.start_step"
            )


def _score(runtime: Runtime, snapshots: Snapshots) -> Callable[[Batch, str], Scores]:
    def score(batch: Batch, weights: str) -> Scores:
        if not weights:
            return runtime.policy.score(batch)
        if weights not in snapshots:
            raise ConfigError(
                f"objectives.{batch.objective}: snapshot '{weights}' is not taken yet; give it an earlier "
                f"snapshots.{weights}.start_step, or a name under snapshots"
            )
        with snapshots.using(weights):
            return runtime.policy.score(batch)

    return score


def source_states(streams: dict[str, Stream]) -> dict[str, Any]:
    """State of every source, by objective."""
    return {name: stream.source.state_dict() for name, stream in streams.items()}
