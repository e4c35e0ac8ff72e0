"""A plan as tables for a person, and as the comment that a recipe carries."""

from __future__ import annotations

from rlpt.planning.advice import room
from rlpt.planning.layout import LayoutPlan
from rlpt.training.memory import megabytes
from rlpt.training.throughput import duration

Rows = list[tuple[str, ...]]
WORK_COLUMNS = ("objective", "microbatches", "rows each", "tokens a step", "episodes", "prompt", "sampled")
LAYOUT_COLUMNS = ("tensor", "pipeline", "data", "rows", "recompute", "at most", "step", "tokens/s", "MFU")
NO_CONTEXT = "not supported: the attention holds whole rows"


def summary_rows(plan: LayoutPlan) -> Rows:
    """The plan in short."""
    spent, work = plan.seconds, plan.flops
    parts = {
        "layers": spent.layers,
        "log-prob head": spent.head,
        "pipeline bubble": spent.bubble,
        "rollouts": spent.rollout,
        "scorings": spent.scoring,
        "communication": spent.communication,
    }
    rows: Rows = [
        ("ranks", f"{plan.world_size:,} {plan.hardware.name} = {mesh(plan)}"),
        ("context parallelism", NO_CONTEXT),
        ("parameters", f"{plan.parameters:,} (vocabulary {plan.vocabulary:,} padded, {plan.dtype})"),
        ("tokens a step", f"{plan.tokens:,}"),
        ("episodes a step", f"{plan.episodes:,}"),
        ("model FLOPs a step", f"{work.model:.3g} (text {work.text:.3g}, episodes {work.episodes:.3g})"),
        ("FLOPs that are executed", f"{work.executed:.3g}"),
        *((f"sent by a rank, {axis}", megabytes(size)) for axis, size in plan.sent.items() if size),
        ("memory of the fullest rank", f"{megabytes(plan.fullest.total)} of {megabytes(room(plan.hardware))}"),
        *((f"seconds a step, {what}", f"{value:.3g}") for what, value in parts.items() if value),
        ("seconds a step, estimated", f"{spent.total:.3g}"),
        ("tokens a second, estimated", f"{plan.tokens / spent.total:,.0f}"),
        ("model FLOPs utilisation, estimated", f"{plan.utilisation:.1%}"),
    ]
    return rows


def run_rows(plan: LayoutPlan, steps: int) -> Rows:
    """What the whole run takes, objectives in the steps that they take part in."""
    active = max((work.active for work in plan.works), default=1.0)
    return [("the whole run, estimated at most", f"{steps:,} steps, {duration(steps * active * plan.seconds.total)}")]


def work_rows(plan: LayoutPlan) -> Rows:
    """By objective; microbatches and rows of one replica, the rest of all."""
    return [
        (
            work.objective,
            f"{work.microbatches:,}",
            f"{work.rows:,}",
            f"{work.positions * plan.data:,}",
            f"{work.episodes * plan.data:,}",
            f"{work.prompt_tokens:,}",
            f"{work.sampled_tokens:,}",
        )
        for work in plan.works
    ]


def stage_columns(plan: LayoutPlan) -> list[str]:
    """The stages that `stage_rows` shows."""
    return ["of a rank of stage", *map(str, _shown(plan))]


def stage_rows(plan: LayoutPlan) -> Rows:
    """Memory of a rank, a column a stage: the first two, the last and the fullest."""
    shown = [plan.memory[stage] for stage in _shown(plan)]
    parameters = [f"{plan.stages[stage].state.parameters:,}" for stage in _shown(plan)]
    parts = {
        "weights": [one.weights for one in shown],
        "gradients": [one.gradients for one in shown],
        "optimizer": [one.optimizer for one in shown],
        "snapshots, shadow": [one.copies for one in shown],
        "activations in flight": [one.activations for one in shown],
        "workspace, head included": [one.workspace for one in shown],
        "rollouts: cache, sampler": [one.rollout for one in shown],
        "at the fullest moment": [one.total for one in shown],
    }
    rows = [(what, *map(megabytes, sizes)) for what, sizes in parts.items() if any(sizes)]
    return [("parameters", *parameters), *rows]


def _shown(plan: LayoutPlan) -> list[int]:
    last = len(plan.stages) - 1
    return sorted({0, min(1, last), last, plan.memory.index(plan.fullest)})


def layout_rows(plans: list[LayoutPlan]) -> Rows:
    """Layouts side by side."""
    return [
        (
            str(plan.layout["parallel.tensor"]),
            str(plan.layout["parallel.pipeline"]),
            str(plan.data),
            str(plan.layout["batch.micro_batch_size"]),
            str(plan.layout["model.recompute"]),
            megabytes(plan.fullest.total),
            f"{plan.seconds.total:.3g} s",
            f"{plan.tokens / plan.seconds.total:,.0f}",
            f"{plan.utilisation:.1%}",
        )
        for plan in plans
    ]


def mesh(plan: LayoutPlan) -> str:
    """The sizes of the axes in words."""
    layout = plan.layout
    sequence = " with sequence parallelism" if layout["parallel.sequence_parallel"] else ""
    return f"tensor {layout['parallel.tensor']}{sequence} x pipeline {layout['parallel.pipeline']} x data {plan.data}"


def comment(plan: LayoutPlan) -> str:
    """One line for a recipe: what to expect."""
    return (
        f"# rlpt plan (estimates): {plan.world_size} {plan.hardware.name}, {plan.parameters / 1e9:.3g} B parameters, "
        f"{megabytes(plan.fullest.total)} a rank, {plan.seconds.total:.3g} s a step, "
        f"{plan.tokens / plan.seconds.total:,.0f} tokens/s, {plan.utilisation:.0%} MFU"
    )
