"""Opens each objective's algorithm and source from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlpt import registry
from rlpt.algorithms.base import Algorithm
from rlpt.batch import Batch, BatchSource, SourceContext
from rlpt.config import Config
from rlpt.errors import ConfigError
from rlpt.models.snapshots import Snapshots
from rlpt.training.runtime import Runtime

REFERENCE = "reference"  # the snapshot that a KL term refers to


@dataclass(frozen=True)
class Stream:
    """One objective at work."""

    algorithm: Algorithm
    source: BatchSource


def create_algorithms(config: Config) -> dict[str, Algorithm]:
    """The algorithms by objective. Raises ConfigError naming the key."""
    return {
        name: registry.create("algorithm", objective.algorithm, f"objectives.{name}.algorithm")
        for name, objective in config.objectives.items()
    }


def open_streams(runtime: Runtime, snapshots: Snapshots) -> dict[str, Stream]:
    """Every objective's algorithm with its open source. Raises ConfigError or DataError."""
    config, mesh = runtime.config, runtime.mesh
    streams = {}
    for name, algorithm in create_algorithms(config).items():
        spec = config.objectives[name].source
        options = registry.create("source", spec, f"objectives.{name}.source")
        if algorithm.uses_rewards != (spec["name"] == "episodes"):
            raise ConfigError(
                f"objectives.{name}: algorithm '{config.objectives[name].algorithm['name']}' "
                f"{'needs' if algorithm.uses_rewards else 'does not take'} rewards, which source '{spec['name']}' "
                f"{'does not give' if algorithm.uses_rewards else 'gives'}"
            )
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
            algorithm=algorithm,
            generator=runtime.generator,
            steps=max(0, config.schedule.steps - config.objectives[name].start_step),
            reference=_reference(runtime, snapshots) if algorithm.needs_reference else None,
        )
        streams[name] = Stream(algorithm, options.open(context))
    return streams


def _reference(runtime: Runtime, snapshots: Snapshots) -> Callable[[Batch], Tensor]:
    def logprobs(batch: Batch) -> Tensor:
        with snapshots.using(REFERENCE):
            return runtime.policy.score(batch).logprobs.cpu()

    return logprobs


def source_states(streams: dict[str, Stream]) -> dict[str, Any]:
    """State of every source, by objective."""
    return {name: stream.source.state_dict() for name, stream in streams.items()}
