"""The peers of `rlpt bench head`, called as their users call them: torch's own chunked loss, and Liger-Kernel's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from rlpt.bench.head_problem import CLIP, Loss, Problem, clipped, next_token
from rlpt.kernels.hardware import on_gpu

Peer = Callable[[Problem], Tensor]  # -> [] the sum of the loss
LIGER = "Liger-Kernel"
_MISSING = "Liger-Kernel is not installed: pip install 'rlpt[bench]'"
_NO_ENTROPY = "Liger-Kernel is left out: none of its losses has an entropy."
_ON_POLICY = (
    "Liger-Kernel: its fused cross entropy is Triton, for GPUs only; here its GRPO loss, on policy and with advantages "
    "of 1, has the same gradient."
)


def peers(loss: Loss, weight: Tensor) -> tuple[dict[str, Peer], list[str]]:
    """Those that have this loss where `weight` lies, and what is to be said of them and of the one left out."""
    found: dict[str, Peer] = {}
    if loss is next_token and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        found["torch linear_cross_entropy"] = torch_next_token
    if find_spec("liger_kernel") is None:
        return found, [_MISSING]
    if loss is next_token:
        found[LIGER] = liger_next_token() if on_gpu(weight) else liger_on_policy()
        return found, [] if on_gpu(weight) else [_ON_POLICY]
    if loss is clipped:
        found[LIGER] = liger_clipped()
        return found, []
    return found, [_NO_ENTROPY]


def torch_next_token(problem: Problem) -> Tensor:
    """torch's chunked linear_cross_entropy (2.13 and later)."""
    return functional.linear_cross_entropy(  # type: ignore[attr-defined, unused-ignore]
        problem.hidden[problem.at],
        problem.weight,
        problem.labels,
        reduction="sum",
        options=torch.nn.LinearCrossEntropyOptions(),  # type: ignore[attr-defined, unused-ignore]
    )


def liger_next_token() -> Peer:
    """Its fused linear cross entropy, Triton."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda problem: loss(problem.weight, problem.hidden[problem.at], problem.labels)


def liger_on_policy() -> Peer:
    """Its GRPO loss with advantages and ratios of 1: the gradient is that of -sum log p, the value is -n."""
    loss = _grpo()
    return lambda problem: loss(problem, torch.ones_like(problem.advantages), None)


def liger_clipped() -> Peer:
    """Its GRPO loss."""
    loss = _grpo()
    return lambda problem: loss(problem, problem.advantages, problem.old_logprobs[:, None])


def _grpo() -> Callable[[Problem, Tensor, Tensor | None], Tensor]:
    """(problem, advantages [n], log-probs [n, 1] of the sampler) -> [] sum of the chunked GRPO loss without a KL term.

    Each row is a sequence of its own, because each has its own advantage. All rows are one chunk, inside which the loss
    goes by 2048 rows and 4096 columns: on a CPU it is fastest so, and not compiled.
    """
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    def loss(problem: Problem, advantages: Tensor, old_logprobs: Tensor | None) -> Tensor:
        grpo = LigerFusedLinearGRPOLoss(
            beta=0.0,
            use_ref_model=False,
            epsilon_low=CLIP,
            epsilon_high=CLIP,
            chunk_size=len(problem.at),
            compiled=on_gpu(problem.weight),
        )
        total, _ = grpo(
            problem.hidden[problem.at][:, None],
            problem.weight,
            problem.labels[:, None],
            torch.ones_like(advantages)[:, None],
            advantages,
            old_per_token_logps=old_logprobs,
            num_items_in_batch=1,
        )
        summed: Tensor = total
        return summed

    return loss
