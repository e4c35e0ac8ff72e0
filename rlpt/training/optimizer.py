"""Megatron's data-parallel wrapper and AdamW, and what the step asks of them."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import (
    OptimizerConfig,
    ParamKey,
    ParamWithNamePredicate,
    get_megatron_optimizer,
    get_standard_config_overrides,
)
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

from rlpt.config import Config
from rlpt.distributed.device import Device
from rlpt.models.gpt import GPT
from rlpt.models.lora import is_adapter


def wrap_data_parallel(config: Config, gpt: GPT, device: Device) -> DistributedDataParallel:
    """The model with gradient buffers that are summed (never averaged) over data-parallel ranks."""
    alone = parallel_state.get_data_parallel_world_size() == 1
    wrapper = _OneReplica if alone else DistributedDataParallel
    with device.megatron():
        model = wrapper(
            gpt.config,
            DistributedDataParallelConfig(
                grad_reduce_in_fp32=device.dtype == torch.bfloat16,
                use_distributed_optimizer=config.parallel.distributed_optimizer,
                overlap_grad_reduce=False,
            ),
            gpt,
        )
    for buffer in model.buffers:
        _count_padding(buffer)
    return model


class _OneReplica(DistributedDataParallel):
    """Where there is one replica, its gradient is the sum and its weights are all weights: nothing is sent, which
    Megatron would do to itself, three copies of the model a step."""

    def start_param_sync(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def start_grad_sync(self, *_: Any) -> None:
        """Nothing."""

    def finish_grad_sync(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def _count_padding(buffer: Any) -> None:
    """Counts the padding at the ends of buckets as data, which moves nothing.

    Megatron 0.16.1 saves moments without it, and then looks for each parameter's where they lay with it: behind the
    first bucket (under pipeline parallelism a tied embedding has one of its own) a checkpoint would hold shifted ones.
    """
    for bucket in buffer.buckets:
        bucket.numel_unpadded = bucket.grad_data.numel()
    buffer.numel_unpadded = buffer.numel


class Optimizer:
    """AdamW over the wrapped model; Megatron's, distributed over data-parallel ranks when configured."""

    def __init__(self, config: Config, model: DistributedDataParallel, device: Device) -> None:
        options = config.optimizer
        self.model, self.device, self._clip = model, device, options.clip_grad
        megatron_config = OptimizerConfig(
            optimizer="adam",
            lr=options.lr,
            min_lr=options.lr * options.min_lr_ratio,
            weight_decay=options.weight_decay,
            adam_beta1=options.beta1,
            adam_beta2=options.beta2,
            adam_eps=options.epsilon,
            clip_grad=options.clip_grad,
            bf16=device.dtype == torch.bfloat16,
            params_dtype=device.dtype,
            use_distributed_optimizer=config.parallel.distributed_optimizer,
        )
        overrides: dict[ParamKey, Any] = get_standard_config_overrides(megatron_config)  # no decay of norms and biases
        adapter = config.model.adapter
        if adapter is not None and adapter.lr_scale != 1:  # two groups with the same figures would be one to Megatron
            adapters = ParamWithNamePredicate("adapter", fn=lambda _, name: is_adapter(name))
            overrides[ParamKey(with_name_predicate=adapters)] = {"lr_mult": adapter.lr_scale}
        with device.megatron():
            self.megatron = get_megatron_optimizer(
                megatron_config, [model], config_overrides=overrides, use_gloo_process_groups=False
            )
        self._use_fused()

    def zero_grad(self) -> None:
        """Clears gradients and their buffers."""
        self.model.zero_grad_buffer()
        self.megatron.zero_grad()

    def gradient_norm(self) -> float:
        """Global norm of the finalised gradient; the same on every rank."""
        with self.device.megatron():
            self.megatron.prepare_grads()
            norm = self.megatron.get_grad_norm()
        return float(norm)

    def gradients(self) -> list[Tensor]:
        """Clones of this rank's share of the finalised gradient, no element held by two ranks."""
        with self.device.megatron():
            self.megatron.prepare_grads()
            return [gradient.detach().clone() for gradient in self.megatron.get_main_grads_for_grad_norm()]

    def sum_over_shares(self, values: Tensor) -> Tensor:
        """In place: sums over the ranks that hold shares of one gradient."""
        torch.distributed.all_reduce(values, group=self.megatron.get_grad_stats_parallel_group())
        return values

    def buffers(self) -> list[Tensor]:
        """The gradient buffers themselves."""
        return [buffer.grad_data for buffer in self.model.buffers + self.model.expert_parallel_buffers]

    def step(self, lr: float, weight_decay: float, norm: float | None = None) -> float:
        """One update; returns the gradient norm before clipping: `norm`, where `gradient_norm` has just told."""
        norm = self.gradient_norm() if norm is None else norm
        for group in self.megatron.param_groups:
            group["lr"] = lr * group["lr_mult"]
            group["weight_decay"] = weight_decay * group["wd_mult"]
        with self.device.megatron():
            if self._clip > 0:
                for part in self._parts():
                    clip_grad_by_total_norm_fp32(part.get_parameters(), self._clip, norm)
            self.megatron.step_with_ready_grads()
        return norm

    def _use_fused(self) -> None:
        """torch's AdamW in one pass over memory, where Megatron's default makes a pass for each operation."""
        for part in self._parts():
            for group in part.optimizer.param_groups:
                group["fused"], group["foreach"] = True, False

    def sharded_state_dict(self, model_state: Any, is_loading: bool) -> Any:
        """For dist_checkpointing: loadable at any tensor, pipeline and data size."""
        if is_loading:
            self._allocate_state()
        with self.device.megatron():
            return self.megatron.sharded_state_dict(
                model_state, is_loading=is_loading, metadata={"distrib_optim_sharding_type": "fully_reshardable"}
            )

    def allocated_bytes(self) -> int:
        """Of moments and master weights on this rank, allocated here where no step has been made."""
        self._allocate_state()
        known = {one.untyped_storage()._cdata for one in self.model.module.parameters()}
        held: dict[int, int] = {}
        for part in self._parts():
            masters = [one for group in part.optimizer.param_groups for one in group["params"]]
            moments = [one for state in part.optimizer.state.values() for one in state.values()]
            for tensor in masters + moments:
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    held[storage._cdata] = storage.nbytes()
        return sum(held.values())

    def replicated(self) -> dict[str, Tensor]:
        """Weights by name, and the optimizer's state where each data-parallel replica holds it whole."""
        found = {name: one.data for name, one in self.model.module.named_parameters()}
        for number, part in enumerate(self._parts()):
            if isinstance(part, DistributedOptimizer):
                continue
            known = {one.data_ptr() for one in found.values()}
            masters = [one for group in part.optimizer.param_groups for one in group["params"]]
            for place, master in enumerate(masters):
                name = f"optimizer {number}, parameter {place}"
                if master.data_ptr() not in known:
                    found[f"{name}: weights"] = master.data
                for key, one in sorted(part.optimizer.state.get(master, {}).items()):
                    found[f"{name}: {key}"] = one
        return found

    def reload_weights(self) -> None:
        """To be called after the weights were set from outside: its master weights (of bfloat16) become theirs."""
        with self.device.megatron():
            self.megatron.reload_model_params()

    def _allocate_state(self) -> None:
        """Gives torch's AdamW its moments before the first step: Megatron asks for its step count while loading."""
        for optimizer in self._parts():
            for group in optimizer.optimizer.param_groups:
                for parameter in group["params"]:
                    optimizer.optimizer.state.setdefault(
                        parameter,
                        {
                            "step": torch.zeros((), device=parameter.device),
                            "exp_avg": torch.zeros_like(parameter.data),
                            "exp_avg_sq": torch.zeros_like(parameter.data),
                        },
                    )

    @torch.no_grad()
    def load_state_dict(self, state: Any) -> None:
        """What `sharded_state_dict` gave, after dist_checkpointing filled it."""
        with self.device.megatron():
            for optimizer in self._parts():
                if isinstance(optimizer, DistributedOptimizer):
                    _load_distributed(optimizer, dict(state))
                else:
                    optimizer.load_state_dict(state)

    def _parts(self) -> list[Any]:
        return getattr(self.megatron, "chained_optimizers", [self.megatron])


def _load_distributed(optimizer: DistributedOptimizer, state: dict[str, Any]) -> None:
    """Megatron's load for torch's AdamW, whose `step` is a state tensor that Megatron 0.16.1 looks for in the shards.

    Each parameter gets its own step tensor: torch counts it up in place.
    """
    parameters = state.pop("param_state")
    optimizer.load_state_dict(state)
    inner = optimizer.optimizer.state
    steps = {parameter: values.pop("step").to(parameter.device).clone() for parameter, values in inner.items()}
    optimizer.load_parameter_state_from_fully_reshardable(parameters)
    for parameter, step in steps.items():
        inner[parameter]["step"] = step
