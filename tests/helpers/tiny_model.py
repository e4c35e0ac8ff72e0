"""A tiny model for tests: its configuration, random batches for it, and a policy on the ranks that there are."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.config import Config, parse_config
from rlpt.distributed.device import PATCHES, Device, import_megatron_quietly, leave, setup_device
from rlpt.distributed.mesh import Mesh, init_mesh
from rlpt.models.gpt import build_gpt
from rlpt.models.initialization import draw_shard
from rlpt.models.lora import is_adapter
from rlpt.models.policy import Policy

VOCABULARY, LENGTH, STEPS = 90, 24, 20
_LAST_MESH: dict[tuple[int, int], Mesh] = {}
SILENT = 7  # every seventh id is outside the second legal set
OBJECTIVES = {"text": {"name": "next_token"}, "play": {"name": "grpo", "entropy_bonus": 0.01}}


def tiny_config(
    parallel: dict[str, Any] | None = None,
    dtype: str = "float32",
    algorithms: dict[str, dict[str, Any]] = OBJECTIVES,
    microbatches: int = 4,
    **model: Any,
) -> Config:
    """Two layers, width 32, an objective for each algorithm. A large `init_std` makes every token of the past tell in
    the log-probs."""
    objective = {"source": {"name": "corpus"}, "microbatches": microbatches}
    return parse_config(
        {
            "tokenizer": "none",
            "device": {"kind": "cpu", "dtype": dtype, "threads": 1},
            "parallel": parallel or {},
            "model": {
                "num_layers": 2,
                "hidden_size": 32,
                "num_attention_heads": 4,
                "num_query_groups": 2,
                "ffn_hidden_size": 48,
                "vocab_divisor": 32,
            }
            | model,
            "batch": {"sequence_length": LENGTH, "micro_batch_size": 3},
            "objectives": {
                name: objective | {"algorithm": spec, "coefficient": 0.7 if name == "play" else 1.0}
                for name, spec in algorithms.items()
            },
            "schedule": {"steps": STEPS, "warmup_steps": 2},
            "optimizer": {"lr": 3e-3},
        }
    )


def build(config: Config, heads: Sequence[str] = ()) -> tuple[Mesh, Policy]:
    """Mesh and policy of a layout, on the ranks that this process belongs to."""
    device = setup_device(config.device)
    mesh = _mesh(config, device)
    padded = config.model.padded_vocabulary(VOCABULARY)
    return mesh, Policy(build_gpt(config, padded, mesh, device, heads), mesh, device, VOCABULARY)


def _mesh(config: Config, device: Device) -> Mesh:
    """The last one where the layout is the same: every group of processes starts threads that stay."""
    layout = (config.parallel.tensor, config.parallel.pipeline)
    if layout not in _LAST_MESH:
        _LAST_MESH.clear()
        _LAST_MESH[layout] = init_mesh(config, device)
    return _LAST_MESH[layout]


def heads_of(algorithms: Mapping[str, Any]) -> list[str]:
    """The scalar heads that algorithms train."""
    return sorted({algorithm.head for algorithm in algorithms.values()} - {""})


@torch.no_grad()
def wake(policy: Policy, config: Config, std: float = 0.3) -> None:
    """Draws what starts at zero (adapters' outer halves, heads), the same at every layout."""
    for name, parameter in policy.gpt.named_parameters():
        if name.startswith("heads.") or (is_adapter(name) and not parameter.any()):
            parameter.copy_(draw_shard(name, parameter, std, config, policy.mesh))


@contextlib.contextmanager
def one_rank() -> Iterator[None]:
    """Inside, models can be built in this process; afterwards it is as it was."""
    import_megatron_quietly()
    holders = [(importlib.import_module(symbol.rpartition(".")[0]), symbol.rpartition(".")[2]) for symbol in PATCHES]
    before = [getattr(module, name) for module, name in holders]
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        yield
    finally:
        from megatron.core import parallel_state

        parallel_state.destroy_model_parallel()
        _LAST_MESH.clear()
        leave()
        for (module, name), value in zip(holders, before):
            setattr(module, name, value)
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


@contextlib.contextmanager
def lone_policy() -> Iterator[Policy]:
    """A policy of one rank in this process, whose logits differ."""
    with one_rank():
        config = tiny_config(init_std=0.3)
        _, policy = build(config)
        wake(policy, config)
        yield policy


def random_batch(objective: str, key: int, density: float, rows: int = 3) -> Batch:
    """Rows of two segments with a random loss mask."""
    rng = np.random.default_rng([key, len(objective)])
    tokens = torch.from_numpy(rng.integers(0, VOCABULARY, (rows, LENGTH + 1)))
    cut = int(rng.integers(5, LENGTH - 5))
    segments = (torch.arange(LENGTH) >= cut).long().expand(rows, LENGTH).contiguous()
    return Batch(
        objective=objective,
        tokens=tokens[:, :-1].contiguous(),
        labels=tokens[:, 1:].contiguous(),
        positions=torch.arange(LENGTH).expand(rows, LENGTH).contiguous(),
        loss_mask=torch.from_numpy(rng.random((rows, LENGTH)) < density),
        segments=segments,
    )


def played_batch(
    objective: str, key: int, density: float, *, head: str = "", num_candidates: int = 0, rows: int = 3
) -> Batch:
    """The same with everything that an objective may read of played episodes; labels and candidates are in the legal
    set that goes with them."""
    batch = random_batch(objective, key, density, rows)
    rng = np.random.default_rng([key, len(objective), 1])

    def floats(mean: float, spread: float, *more: int) -> torch.Tensor:
        return torch.from_numpy((mean + spread * rng.standard_normal((rows, LENGTH, *more))).astype(np.float32))

    legal = torch.ones(2, VOCABULARY, dtype=torch.bool)
    legal[1, ::SILENT] = False
    batch = replace(
        batch,
        advantages=floats(0, 1),
        behavior_logprobs=floats(-4.4, 0.4),
        ref_logprobs=floats(-4.4, 0.4),
        returns=floats(0, 1),
        values=floats(0, 1),
        episode_rewards=torch.from_numpy(rng.random((rows, 1)).astype(np.float32)).expand(rows, LENGTH).contiguous(),
        sequence_share=(1 / batch.loss_mask.sum(1, keepdim=True).clamp(min=1)).expand(rows, LENGTH).contiguous(),
        policy_steps=torch.from_numpy(rng.integers(0, 3, (rows, LENGTH))),
        legal_table=legal,
        legal_index=legal[1][batch.labels].long(),
        temperature=1.3,
        head=head,
    )
    if not num_candidates:
        return batch
    open_ids = np.flatnonzero(legal[1].numpy())
    order = rng.random((rows, LENGTH, len(open_ids))).argsort(-1)[..., :num_candidates]
    weights = floats(0, 1, num_candidates).softmax(-1)
    return replace(batch, candidates=torch.from_numpy(open_ids[order]), candidate_weights=weights)
