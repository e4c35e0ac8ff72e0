"""Worker of the planning test: what real training steps allocate on each rank of real layouts, written as JSON.

Started by `python -m rlpt.launcher ... allocated.py OUT`; not a test module itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.tiny_model import build, random_batch, tiny_config
from helpers.tiny_training import algorithms_of

from rlpt.config import Config
from rlpt.distributed.device import leave
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.schedule import Schedule
from rlpt.training.step import TrainStep

ROWS = 3
LAYOUTS: dict[str, tuple[dict[str, Any], str]] = {  # parallel section, model.recompute
    "sequence": ({"tensor": 2, "sequence_parallel": True}, "none"),
    "pipeline": ({"pipeline": 2}, "mlp"),
    "data": ({"data": 2}, "mlp"),
    "replicated optimizer": ({"data": 2, "distributed_optimizer": False}, "none"),
}


def planned_config(parallel: dict[str, Any], recompute: str) -> Config:
    """One microbatch of text a replica."""
    data = parallel.get("data", 1)
    algorithms = {"text": {"name": "next_token"}}
    shape = {"num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 160}
    return tiny_config(parallel, algorithms=algorithms, microbatches=data, recompute=recompute, **shape)


def allocated(config: Config) -> dict[str, int]:
    """Bytes on this rank, counted on the tensors that there are after a step."""
    mesh, policy = build(config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    optimizer = Optimizer(config, model, policy.device)
    step = TrainStep(policy, model, optimizer, algorithms_of(config))
    batches = {"text": [random_batch("text", mesh.data.rank, 1.0, ROWS)]}
    weights = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in policy.gpt.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if torch._C._current_graph_task_id() != -1:  # backward has begun: it computes again, and keeps for a moment
            return tensor
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step.forward_backward(batches, {"text": 1.0}, step.global_counts(batches))
    step(batches, Schedule(config).plan(0, {}))
    state = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for part in optimizer._parts()
        for values in part.optimizer.state.values()
        for value in values.values()
    }
    return {
        "stage": mesh.pipeline.rank,
        "parameters": sum(one.numel() for one in policy.gpt.parameters()),
        "weights": sum(weights.values()),
        "gradients": sum(buffer.untyped_storage().nbytes() for buffer in optimizer.buffers()),
        "optimizer": sum(state.values()),
        "saved": sum(one.nbytes() for pointer, one in saved.items() if pointer not in weights),
    }


def main(out: Path) -> None:
    """Every layout on every rank."""
    seen = {}
    for name, (parallel, recompute) in LAYOUTS.items():
        config = planned_config(parallel, recompute)
        mesh, _ = build(config)
        seen[name] = mesh.world.gather_objects(allocated(config))
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
