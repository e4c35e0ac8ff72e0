"""The whole configuration, typed and strict: YAML with a `base:` list, dotted overrides, cross-checks.

A default lives in exactly one place, its field. Component options (`algorithm`, `source`, `selfplay`, tasks) are
`{name: ..., **options}` and are checked by the registry against the component's own dataclass fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from rlpt.config_files import apply_overrides, as_written, load_yaml, unknown_keys
from rlpt.config_objectives import BilevelConfig, ObjectiveConfig, Section, SnapshotConfig, Spec
from rlpt.errors import ConfigError
from rlpt.registry import describe, suggest

RESERVED = ("policy", "shadow")  # what rewards call the training weights; the copy of a bilevel run


class AdapterConfig(Section):
    """Low-rank adapters (LoRA, 2106.09685) beside the weights of every linear layer of the decoder."""

    rank: int = Field(8, ge=1, description="inner width of B A, which is added to each weight")
    alpha: float = Field(16, gt=0, description="B A is scaled by alpha / rank")
    lr_scale: float = Field(1.0, ge=0, description="their learning rate / optimizer.lr; 0: they stay as they began")


class ModelConfig(Section):
    """The decoder, in the Llama/Qwen shape."""

    num_layers: int = Field(4, ge=1, description="transformer layers")
    hidden_size: int = Field(128, ge=8, description="width of the residual stream")
    num_attention_heads: int = Field(4, ge=1, description="query heads")
    num_query_groups: int = Field(2, ge=1, description="key/value heads; must divide num_attention_heads")
    ffn_hidden_size: int = Field(352, ge=8, description="width inside the SwiGLU block")
    tie_embeddings: bool = Field(True, description="the output head is the embedding, transposed")
    rotary_base: int = Field(10_000, ge=1, description="base of the rotary frequencies")
    norm_epsilon: float = Field(1e-5, gt=0, description="RMSNorm's epsilon")
    init_std: float = Field(0.02, gt=0, description="standard deviation of the initial weights")
    vocab_divisor: int = Field(64, ge=1, description="the vocabulary is padded up to a multiple of this")
    adapter: AdapterConfig | None = Field(None, description="low-rank adapters beside the weights; null: none")
    recompute: Literal["none", "mlp"] = Field(
        "none", description="what the backward pass computes again instead of keeping: the SwiGLU blocks"
    )

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"num_query_groups={self.num_query_groups} does not divide num_attention_heads="
                f"{self.num_attention_heads}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} does not divide hidden_size={self.hidden_size}"
            )
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("hidden_size / num_attention_heads must be even (rotary embedding)")
        return self

    def padded_vocabulary(self, vocab_size: int) -> int:
        """`vocab_size` rounded up to a multiple of `vocab_divisor`; the same for every parallel layout."""
        return -(-vocab_size // self.vocab_divisor) * self.vocab_divisor


class ParallelConfig(Section):
    """Sizes of the mesh's axes; world size = tensor x pipeline x data."""

    tensor: int = Field(1, ge=1, description="tensor-parallel size")
    pipeline: int = Field(1, ge=1, description="pipeline-parallel size (training of text; episodes need 1)")
    data: int | None = Field(None, ge=1, description="data-parallel size; default: what the world size leaves")
    sequence_parallel: bool = Field(False, description="split norms and residuals along the sequence over tensor ranks")
    distributed_optimizer: bool = Field(True, description="shard optimizer state over data-parallel ranks")
    check_replicas_every: int = Field(
        100, ge=0, description="steps between comparisons of data-parallel replicas, which precede saves too; 0: none"
    )


class DeviceConfig(Section):
    """Where it runs."""

    kind: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs when there are any, else the CPU")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        "auto", description="auto: bfloat16 on GPU, float32 on CPU; float64 is for exactness tests (no optimizer)"
    )
    timeout_seconds: int = Field(
        600, ge=1, description="time after which a collective that does not finish is an error"
    )
    phase_seconds: float = Field(
        3600, ge=0, description="time that one rollout, step, save or evaluation may take; 0: no limit"
    )
    threads: int = Field(0, ge=0, description="CPU threads a rank; 0: cores divided by the ranks of this host")


class BatchConfig(Section):
    """Shape of a microbatch."""

    sequence_length: int = Field(128, ge=8, description="tokens a row (T)")
    micro_batch_size: int = Field(8, ge=1, description="rows a microbatch (B)")
    fill: bool = Field(
        True, description="microbatches that fit into B x T positions run as one, rows of text filling what is left"
    )

    overlap: float = Field(
        0.0,
        ge=0,
        le=1,
        description="text is trained on beside a play once no larger share of its rows is left (1: from its start, 0: "
        "after it); takes the memory of both at once, gained one H200 1 % and a CPU nothing",
    )

    @property
    def room(self) -> int:
        """Positions up to which microbatches run together; 0: each by itself."""
        return self.micro_batch_size * self.sequence_length if self.fill else 0


class OptimizerConfig(Section):
    """AdamW."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="final learning rate / peak")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip_grad: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")


class ScheduleConfig(Section):
    """How long, and how the learning rate moves."""

    steps: int = Field(1000, ge=1, description="optimizer steps")
    max_seconds: float = Field(
        0, ge=0, description="wall-clock seconds, evaluations included, after which the run ends as it stands; 0: none"
    )
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up")
    decay: Literal["cosine", "wsd", "constant"] = Field("cosine", description="wsd: warm-up, stable, decay")
    wsd_decay_fraction: float = Field(0.2, gt=0, le=1, description="last part of the run that decays (wsd)")
    max_skipped_steps: int = Field(5, ge=0, description="non-finite steps in a row that are skipped")
    max_rollbacks: int = Field(
        2, ge=0, description="returns to the last good checkpoint after more of them, past their batches; then it stops"
    )


class CheckpointConfig(Section):
    """When weights and state are written."""

    interval: int = Field(
        200, ge=1, description="steps between checkpoints; the last step and a new best (keep_best) are always saved"
    )
    every_seconds: float = Field(
        0, ge=0, description="also saves after the step at whose end the last save is so long ago; 0: by steps alone"
    )
    asynchronous: bool = Field(
        False,
        description="training goes on while a copy in the host's memory (weights and optimizer once more) is written",
    )
    keep_last: int = Field(2, ge=1, description="newest checkpoints that stay")
    keep_best: str = Field("", description="evaluation figure whose best checkpoint stays too, e.g. tasks.sort.pass@1")
    higher_is_better: bool = Field(True, description="for keep_best")


class EvaluatedTask(Section):
    """One task at one level."""

    task: Spec = Field(description="{name: sort, **options}")
    level: int = Field(ge=0)
    label: str = Field("", pattern=r"^[A-Za-z0-9_@-]*$", description="what its figures are called; default: the task")


class EvaluatedGame(Section):
    """One game against one scripted opponent."""

    task: Spec = Field(description="{name: tic_tac_toe, **options}")
    level: int = Field(0, ge=0)
    opponent: Spec = Field(description="{name: random | solver | minimax | mcts, **options}")
    games: int = Field(200, ge=2, description="the policy sits in each seat in turn")
    temperature: float = Field(0.0, ge=0, description="of the policy's moves, where it does not search; 0: greedy")
    search: Spec | None = Field(None, description="{simulations, leaf, rule, ...}: tree search at each of its moves")
    max_moves: int = Field(0, ge=0, description="after which a game counts as drawn; 0: no limit")
    transcript: bool = Field(False, description="the policy reads its earlier turns, too (as duels with transcript do)")
    label: str = Field("", pattern=r"^[A-Za-z0-9_@-]*$", description="what its figures are called")


class EvaluationConfig(Section):
    """What is measured on held-out text and held-out problems."""

    interval: int = Field(0, ge=0, description="steps between evaluations; 0: only at the start and the end")
    text: list[Path] = Field(default_factory=list, description="shard prefixes of held-out text")
    unigram: list[Path] = Field(
        default_factory=list, description="training shards that the unigram model is counted on"
    )
    text_tokens: int = Field(65_536, ge=1, description="most held-out tokens that are read")
    tasks: list[EvaluatedTask] = Field(default_factory=list)
    games: list[EvaluatedGame] = Field(default_factory=list)
    problems: int = Field(128, ge=1, description="held-out problems a task")
    samples: int = Field(4, ge=1, description="answers sampled a problem")
    pass_at: list[int] = Field(default_factory=lambda: [1, 4], description="k of pass@k; each at most `samples`")
    temperature: float = Field(1.0, ge=0, description="of the sampled answers; 0: greedy")
    selfplay: Spec = Field(
        default_factory=lambda: {"name": "solve"}, description="how answers are asked for (solve and its options)"
    )

    @model_validator(mode="after")
    def _k_fits(self) -> EvaluationConfig:
        if self.pass_at and max(self.pass_at) > self.samples:
            raise ValueError(f"pass_at={self.pass_at} needs samples >= {max(self.pass_at)}, samples={self.samples}")
        return self


class TrackingConfig(Section):
    """Where figures go. metrics.jsonl is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online with WANDB_API_KEY, else offline"
    )
    project: str = "rlpt"
    entity: str = ""
    tags: list[str] = Field(default_factory=list)
    log_interval: int = Field(10, ge=1, description="steps between progress lines")
    gradient_interval: int = Field(0, ge=0, description="steps between per-objective gradient norms and their cosine")
    episode_interval: int = Field(100, ge=1, description="steps between episode tables")


class Config(Section):
    """A whole run."""

    name: str = Field("run", description="the run's name")
    run_dir: Path | None = Field(None, description="where everything is written; default runs/NAME")
    seed: int = Field(1, ge=0)
    tokenizer: Path = Field(description="folder of the tokenizer that data_prep trained")
    model: ModelConfig = Field(default_factory=ModelConfig)
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    device: DeviceConfig = Field(default_factory=DeviceConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    objectives: dict[str, ObjectiveConfig] = Field(min_length=1)
    snapshots: dict[str, SnapshotConfig] = Field(
        default_factory=dict, description="named copies of the weights, for KL terms, baselines and past selves"
    )
    bilevel: BilevelConfig | None = Field(None, description="demonstrations lead, episodes follow; needs model.adapter")
    warm_start: Path | None = Field(
        None, description="run or checkpoint whose weights this run starts from (not its optimizer, data or counters)"
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @field_validator("objectives", mode="before")
    @classmethod
    def _drop_removed(cls, value: Any) -> Any:
        """`objectives.play=null` takes an inherited objective out."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _cross_checks(self) -> Config:
        tensor, model = self.parallel.tensor, self.model
        for key in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
            if getattr(model, key) % tensor:
                raise ValueError(f"parallel.tensor={tensor} does not divide model.{key}={getattr(model, key)}")
        if model.num_layers % self.parallel.pipeline:
            raise ValueError(
                f"parallel.pipeline={self.parallel.pipeline} does not divide model.num_layers={model.num_layers}"
            )
        if self.parallel.sequence_parallel and self.batch.sequence_length % tensor:
            raise ValueError(
                f"parallel.tensor={tensor} does not divide batch.sequence_length={self.batch.sequence_length}, "
                "which parallel.sequence_parallel needs"
            )
        for name, objective in self.objectives.items():
            if objective.source.get("name") == "episodes" and self.parallel.pipeline > 1:
                raise ValueError(
                    f"objectives.{name}: episodes are played in place and need parallel.pipeline=1 "
                    f"(given: {self.parallel.pipeline}); use parallel.tensor instead"
                )
            if objective.reference and objective.reference not in self.snapshots:
                raise ValueError(
                    f"objectives.{name}.reference: no snapshot '{objective.reference}'"
                    f"{suggest(objective.reference, sorted(self.snapshots))}; add it under snapshots"
                )
        for name in self.snapshots:
            if not name.replace("_", "").isalnum() or name in RESERVED:
                raise ValueError(
                    f"snapshots.{name}: a name is letters, digits and _, and not one of {', '.join(RESERVED)}"
                )
        self._check_steps()
        self._check_bilevel()
        if (self.evaluation.tasks or self.evaluation.games) and self.parallel.pipeline > 1:
            raise ValueError(
                "evaluation.tasks and games are answered in place and need parallel.pipeline=1 (given: "
                f"{self.parallel.pipeline}); leave them empty here"
            )
        return self

    def _check_steps(self) -> None:
        """Every step must have something to learn from."""
        objectives = self.objectives.values()
        if any(one.start_step == 0 and one.stop_step is None and one.turns is None for one in objectives):
            return
        empty = next((s for s in range(self.schedule.steps) if not any(one.is_active(s) for one in objectives)), None)
        if empty is not None:
            raise ValueError(
                f"objectives: none takes part in step {empty} of schedule.steps={self.schedule.steps}; change their "
                "start_step, stop_step or turns"
            )

    def _check_bilevel(self) -> None:
        if self.bilevel is None:
            return
        for key in ("upper", "lower"):
            wanted = getattr(self.bilevel, key)
            if wanted not in self.objectives:
                raise ValueError(f"bilevel.{key}: no objective '{wanted}'{suggest(wanted, sorted(self.objectives))}")
        if self.objectives[self.bilevel.lower].source.get("name") != "episodes":
            raise ValueError(f"bilevel.lower: objective '{self.bilevel.lower}' does not play episodes")
        if self.bilevel.meta and self.model.adapter is None:
            raise ValueError("bilevel.meta: the gain term moves the adapters; add model.adapter, or set meta: false")
        if self.bilevel.meta and self.parallel.distributed_optimizer:
            raise ValueError(
                "bilevel.meta: the shadow reads whole gradients; set parallel.distributed_optimizer: false"
            )
        if self.bilevel.meta and self.parallel.pipeline > 1:
            raise ValueError("bilevel.meta: needs parallel.pipeline=1")

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name


def check_world(config: Config, world_size: int) -> int:
    """The data-parallel size. Raises ConfigError unless world size = tensor x pipeline x data and microbatches fit."""
    parallel = config.parallel
    model_ranks = parallel.tensor * parallel.pipeline
    data = world_size // model_ranks
    if world_size % model_ranks or data == 0 or parallel.data not in (None, data):
        raise ConfigError(
            f"world size {world_size} is not tensor x pipeline x data = {parallel.tensor} x {parallel.pipeline} x "
            f"{parallel.data or 'n'}; start {model_ranks * (parallel.data or 1)} ranks "
            f"(torchrun --nproc-per-node) or change parallel.*"
        )
    for name, objective in config.objectives.items():
        if objective.microbatches % data:
            raise ConfigError(
                f"objectives.{name}.microbatches={objective.microbatches} is not divisible by the data-parallel size "
                f"{data}; choose a multiple of {data}"
            )
    return data


def check_vocabulary(config: Config, vocab_size: int) -> int:
    """The padded vocabulary size. Raises ConfigError unless the tensor size divides it."""
    padded = config.model.padded_vocabulary(vocab_size)
    if padded % config.parallel.tensor:
        raise ConfigError(
            f"parallel.tensor={config.parallel.tensor} does not divide the padded vocabulary {padded} "
            f"({vocab_size} tokens, model.vocab_divisor={config.model.vocab_divisor}); "
            f"set model.vocab_divisor to a multiple of {config.parallel.tensor}"
        )
    return padded


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """The resolved configuration. Raises ConfigError that names every wrong key at once."""
    return parse_config(apply_overrides(load_yaml(path), overrides), str(path))


def parse_config(values: Mapping[str, Any], source: str = "configuration") -> Config:
    """A mapping -> Config, all errors reported together with near names for unknown keys."""
    unknown = list(unknown_keys(Config, values, ""))
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        known_bad = {line.split(":")[0] for line in unknown}
        lines = as_written(describe(error).splitlines())
        others = [line for line in lines if line.split(":")[0] not in known_bad]
        raise ConfigError("\n".join([f"{source}:", *unknown, *others])) from None
    return config


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML; `load_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
