"""Memory, work, communication and time of a step, from measured stages, the workload and stated rates.

Every collective is taken to be exposed: nothing here overlaps communication with computation. Volumes are what one rank
sends by ring algorithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpt.config import Config
from rlpt.kernels.one_pass_sizes import one_pass_bytes
from rlpt.planning.hardware import Hardware
from rlpt.planning.stages import Stage
from rlpt.planning.workload import Work
from rlpt.training.accounting import FORWARD, UPDATE, weights_per_token
from rlpt.training.memory import FLOAT32, SHADOW_COPIES

CACHE_COPIES = 1.5  # rows that are finished are left out by a copy of the rest, half of them or less
SAMPLER_TABLES = 4  # float32 tables [rows, vocabulary] beside the logits while tokens are drawn
DECODE_OPERATORS = 45  # of one layer and token: models/decode.py by torch's own count
HEAD_PASSES = 8.0  # FLOPs a weight and loss token of the log-prob head: backward computes the logits again
BLOCK_WEIGHTS = 3  # matrices of a SwiGLU block


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank of one stage at its fullest."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    copies: float  # snapshots, the shadow of a bilevel run
    activations: float  # kept for backward, of all microbatches in flight
    workspace: (
        float  # the rest of one microbatch at its peak, the log-prob head's included: measured by plain torch's, to
    )
    # which a GPU adds what its one pass holds
    rollout: float  # keys, values and tables of the rows that decode, and a microbatch of text beside them; not at the
    # same time as the two above

    @property
    def total(self) -> float:
        """At the fullest moment."""
        held = self.weights + self.gradients + self.optimizer + self.copies
        return held + max(self.activations + self.workspace, self.rollout)


@dataclass(frozen=True)
class Seconds:
    """One step in which every objective takes part."""

    layers: float  # forward and backward, what is computed again included
    head: float  # log-probs and their gradient
    bubble: float  # in which pipeline stages wait
    rollout: float
    scoring: float
    communication: float

    @property
    def total(self) -> float:
        return self.layers + self.head + self.bubble + self.rollout + self.scoring + self.communication


@dataclass(frozen=True)
class Flops:
    """Of one step, over all ranks."""

    text: float  # objectives that play nothing
    episodes: float  # updates on episodes, rollouts and scorings
    executed: float  # both, and what backward computes again

    @property
    def model(self) -> float:
        return self.text + self.episodes


def attention_flops(config: Config, length: int) -> float:
    """Forward FLOPs a token of attention in all layers: packed rows carry a mask, so the whole square is computed."""
    return 4.0 * config.model.num_layers * config.model.hidden_size * length


def memory(
    config: Config, stages: Sequence[Stage], works: Sequence[Work], vocabulary: int, wide: int, is_gpu: bool = False
) -> list[Memory]:
    """By stage. `wide`: bytes of a weight."""
    microbatches = sum(work.microbatches for work in works)
    found = []
    for stage in stages:
        flight = min(microbatches, config.parallel.pipeline - stage.index)  # one forward, one backward in turn
        largest = max((stage.footprints[work.rows] for work in works), key=lambda one: one.saved)
        peak = max(stage.footprints[work.rows].peak - stage.footprints[work.rows].saved for work in works)
        state = stage.state
        copies = sum(
            state.parameters * (FLOAT32 if one.update == "ema" else wide) * one.copies
            for one in config.snapshots.values()
        )
        if config.bilevel is not None and config.bilevel.meta:
            copies += SHADOW_COPIES * state.parameters * FLOAT32
        rollout = max((cache_bytes(config, work, vocabulary, wide) for work in works), default=0.0)
        head = 0.0
        if is_gpu and stage.index == config.parallel.pipeline - 1:
            columns = vocabulary // config.parallel.tensor
            head = max(one_pass_bytes(work.rows * work.length, columns, wide) for work in works)
        if config.batch.overlap and rollout:
            beside = max((stage.footprints[work.rows].peak for work in works if not work.episodes), default=0)
            rollout += beside + head if beside else 0.0
        found.append(
            Memory(
                stage.index,
                state.weights,
                state.gradients,
                state.optimizer,
                copies,
                largest.saved * flight,
                peak + head,
                rollout,
            )
        )
    return found


def cache_bytes(config: Config, work: Work, vocabulary: int, wide: int) -> float:
    """Of the keys and values of rows that decode together, and the sampler's tables."""
    if not work.episodes:
        return 0.0
    columns = work.prompt_tokens + work.sampled_tokens
    return work.decoding_rows * (
        CACHE_COPIES * columns * key_value_bytes(config, wide) + (1 + SAMPLER_TABLES) * vocabulary * FLOAT32
    )


def key_value_bytes(config: Config, wide: int) -> float:
    """Of one token's keys and values on one rank."""
    model = config.model
    groups = model.hidden_size // model.num_attention_heads * model.num_query_groups
    return 2.0 * model.num_layers * groups * wide / config.parallel.tensor


def flops(config: Config, works: Sequence[Work], vocabulary: int, data_size: int) -> Flops:
    """Of a step in which all objectives take part; every label of text and every sampled token carries a loss."""
    body, head = weights_per_token(config.model, vocabulary)
    text = episodes = again = 0.0
    for work in works:
        attention = attention_flops(config, work.length)
        losses = work.episodes * work.sampled_tokens if work.episodes else work.positions
        update = work.positions * (UPDATE * body + 3 * attention) + UPDATE * head * losses
        played = work.episodes * (work.prompt_tokens + work.sampled_tokens)
        context = attention_flops(config, work.prompt_tokens + work.sampled_tokens) / 2
        forward = played * (FORWARD * body + context) + FORWARD * head * work.episodes * work.sampled_tokens
        again += (HEAD_PASSES - UPDATE) * head * losses + recomputed(config, work)
        if work.episodes:
            episodes += update + forward * (1 + work.scorings)
        else:
            text += update
    return Flops(text * data_size, episodes * data_size, (text + episodes + again) * data_size)


def recomputed(config: Config, work: Work) -> float:
    """FLOPs of one replica that backward spends on what forward did not keep, the head left out."""
    model = config.model
    block = BLOCK_WEIGHTS * model.num_layers * model.hidden_size * model.ffn_hidden_size
    each = {"none": 0.0, "mlp": FORWARD * block}
    return work.positions * each[model.recompute]


def volumes(
    config: Config, stages: Sequence[Stage], works: Sequence[Work], data_size: int, wide: int
) -> dict[str, float]:
    """Bytes that the busiest rank sends in a step, by axis."""
    parallel, model = config.parallel, config.model
    stage = max(stages, key=lambda one: max(footprint.sent for footprint in one.footprints.values()))
    updates = sum(work.microbatches * stage.footprints[work.rows].sent for work in works)
    share = (parallel.tensor - 1) / parallel.tensor
    played = sum((1 + work.scorings) * work.episodes * (work.prompt_tokens + work.sampled_tokens) for work in works)
    decoding = 2 * share * played * (2 * model.num_layers + 1) * model.hidden_size * wide
    split = parallel.tensor if parallel.sequence_parallel else 1
    positions = sum(work.positions for work in works)
    between = 2 * positions * model.hidden_size * wide / split if parallel.pipeline > 1 else 0.0
    largest = max(stages, key=lambda one: one.state.gradients).state
    ring = (data_size - 1) / data_size
    data = ring * (largest.gradients + largest.weights if parallel.distributed_optimizer else 2 * largest.gradients)
    name = "tensor and sequence" if parallel.sequence_parallel else "tensor"
    return {name: updates, "tensor, rollouts": decoding, "pipeline": between, "data": data, "context": 0.0}


def seconds(
    config: Config, hardware: Hardware, stages: Sequence[Stage], works: Sequence[Work], vocabulary: int, data_size: int
) -> Seconds:
    """Of a step in which all objectives take part."""
    parallel, wide = config.parallel, hardware.dtype_bytes
    body, head = weights_per_token(config.model, vocabulary)
    rate = hardware.matmul * hardware.matmul_share
    layers_time = head_time = scoring = rollout = 0.0  # of one replica on one rank
    for work in works:
        attention = attention_flops(config, work.length)
        again = recomputed(config, work)
        layers_time += (work.positions * (UPDATE * body + 3 * attention) + again) / parallel.tensor / rate
        losses = work.episodes * work.sampled_tokens if work.episodes else work.positions
        head_time += HEAD_PASSES * head * losses / parallel.tensor / rate
        tokens = work.episodes * (work.prompt_tokens + work.sampled_tokens) * work.scorings
        scoring += tokens * FORWARD * (body + head) / rate / parallel.tensor
        rollout += rollout_seconds(config, hardware, work, vocabulary)
    microbatches = sum(work.microbatches for work in works)
    layers_time /= parallel.pipeline
    bubble = (layers_time + head_time) * (parallel.pipeline - 1) / microbatches  # the last stage is the slowest
    sent = volumes(config, stages, works, data_size, wide)
    near = hardware.bandwidth_share * hardware.link
    far = hardware.bandwidth_share * hardware.network
    model_ranks = parallel.tensor * parallel.pipeline
    tensor = near if parallel.tensor <= hardware.node_ranks else far
    pipeline = near if model_ranks * data_size <= hardware.node_ranks else far
    data = near if parallel.tensor * data_size <= hardware.node_ranks else far
    speed = {"pipeline": pipeline, "data": data}
    communication = sum(size / speed.get(axis, tensor) for axis, size in sent.items())
    return Seconds(layers_time, head_time, bubble, rollout, scoring, communication)


def rollout_seconds(config: Config, hardware: Hardware, work: Work, vocabulary: int) -> float:
    """One play of a replica: each distinct prompt once, then token by token, whichever of arithmetic, memory and eager
    operators is slowest."""
    if not work.episodes:
        return 0.0
    body, head = weights_per_token(config.model, vocabulary)
    split, wide = config.parallel.tensor, hardware.dtype_bytes
    rate = hardware.matmul * hardware.matmul_share
    bandwidth = hardware.memory_bandwidth * hardware.bandwidth_share
    batches = -(-work.episodes // work.decoding_rows)
    prefill = FORWARD * body * work.prompt_tokens * work.prompts / split / rate
    arithmetic = FORWARD * (body + head) * work.decoding_rows / split / rate
    columns = work.prompt_tokens + work.sampled_tokens / 2
    read = (body + head) * wide / split + work.decoding_rows * columns * key_value_bytes(config, wide)
    operators = config.model.num_layers * DECODE_OPERATORS * hardware.operator_seconds
    return prefill + batches * work.sampled_tokens * max(arithmetic + read / bandwidth, operators)
