"""What does not fit, and which knob to turn."""

from __future__ import annotations

from rlpt.config import Config
from rlpt.planning.estimate import Memory
from rlpt.planning.hardware import Hardware
from rlpt.planning.workload import Work
from rlpt.training.memory import megabytes


def room(hardware: Hardware) -> float:
    """Bytes that a rank has for us."""
    return hardware.memory - hardware.reserved


def advice(config: Config, fullest: Memory, hardware: Hardware, works: list[Work]) -> list[str]:
    """Lines, the largest part first; none where it fits."""
    if fullest.total <= room(hardware):
        return []
    over = fullest.total - room(hardware)
    lines = [
        f"does not fit: stage {fullest.stage} needs {megabytes(fullest.total)} of {megabytes(room(hardware))} "
        f"({hardware.name}), {megabytes(over)} too many"
    ]
    sizes = {
        "weights": fullest.weights,
        "gradients": fullest.gradients,
        "optimizer": fullest.optimizer,
        "copies": fullest.copies,
        "activations": fullest.activations,
        "workspace": fullest.workspace,
        "rollout": fullest.rollout,
    }
    training = fullest.activations + fullest.workspace >= fullest.rollout
    for what in sorted(sizes, key=lambda one: -sizes[one]):
        counted = what not in (("rollout",) if training else ("activations", "workspace"))
        if counted and sizes[what] > fullest.total / 10:
            lines.append(f"{what} {megabytes(sizes[what])}: {_knob(what, config, hardware, works)}")
    return lines


def _knob(what: str, config: Config, hardware: Hardware, works: list[Work]) -> str:
    parallel = config.parallel
    played = any(work.episodes for work in works)
    if what == "optimizer" and not parallel.distributed_optimizer:
        return "set parallel.distributed_optimizer: true"
    if what == "optimizer":
        return "more data-parallel ranks, or a larger parallel.tensor"
    if what == "copies":
        return "fewer snapshots, or a pool that keeps fewer"
    if what == "rollout":
        beside = ", batch.overlap: 0" if config.batch.overlap > 0 else ""
        return f"fewer groups or a smaller group_size a replica, more data-parallel ranks, shorter answers{beside}"
    if what == "activations":
        return _activation_knob(config, played)
    if what == "workspace" and config.model.recompute == "none":
        return "lower batch.micro_batch_size, or a larger parallel.tensor, which splits the vocabulary"
    if parallel.tensor < hardware.node_ranks:
        return f"raise parallel.tensor (to {hardware.node_ranks}, a node, at most)"
    if played:
        return "episodes need parallel.pipeline=1: a card with more memory, or a smaller model"
    return "raise parallel.pipeline"


def _activation_knob(config: Config, played: bool) -> str:
    if config.parallel.tensor > 1 and not config.parallel.sequence_parallel:
        return "set parallel.sequence_parallel: true"
    if config.model.recompute == "none":
        return "set model.recompute: mlp"
    if played:
        return "more microbatches of the objectives that play: each then holds fewer rows"
    return "lower batch.micro_batch_size or batch.sequence_length"
