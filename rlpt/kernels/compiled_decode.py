"""New tokens through all layers by one call of compiled code (decode_step.cpp), for float32 weights on a CPU.

What was tried first, on 2 cores and 4 layers of width 256: torch's operators one by one spend two thirds of a step of
8 rows between matrix products; `torch.compile` made of the same step 1.2, 1.0 and 0.1 times its speed at 8, 32 and 128
rows, anew for each shape; oneDNN's own weight layout helped the products alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rlpt.kernels.compiler import has_data, library, suits

_SOURCE = Path(__file__).with_name("decode_step.cpp")
_LANES, _PANEL = 16, 32
_Reduce = ctypes.CFUNCTYPE(ctypes.c_int)
_Pointer, _Long = ctypes.c_void_p, ctypes.c_int64


class _Layer(ctypes.Structure):
    _fields_ = tuple((name, _Pointer) for name in ("input_norm", "qkv", "proj", "mlp_norm", "gate_up", "down"))


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _Long) for name in ("num_layers", "hidden", "groups", "per_group", "head", "ffn", "vocabulary")),
        ("epsilon", ctypes.c_double),
        *((name, _Pointer) for name in ("layers", "final_norm", "output")),
    )


class _Pass(ctypes.Structure):
    _fields_ = (
        ("count", _Long),
        *((name, _Pointer) for name in ("slot", "position", "cos", "sin", "hidden", "cache")),
        *((name, _Long) for name in ("slots", "capacity", "wanted_count")),
        *((name, _Pointer) for name in ("wanted", "normed", "logits", "work", "partial")),
        ("reduce", _Reduce),
        ("threads", _Long),
    )


class LayerTensors(NamedTuple):
    """A layer's weights on this tensor rank, float32."""

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [groups * (per_group + 2) * head, hidden], by group: its queries, its key, its value
    proj: Tensor  # [hidden, groups * per_group * head]
    mlp_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * ffn, hidden], gate above up
    down: Tensor  # [hidden, ffn]


def can_compile(weight: Tensor) -> bool:
    """Whether decoding with such weights is compiled: float32 on a CPU with a C++ compiler."""
    return has_data(weight) and suits(weight, _SOURCE)


class CompiledDecode:
    """Weights laid out for the compiled code: copies, made once for a rollout (a step's time or two)."""

    def __init__(
        self,
        layers: Sequence[LayerTensors],
        final_norm: Tensor,
        output: Tensor,
        groups: int,
        head_size: int,
        epsilon: float,
        reduce: Callable[[Tensor], object] | None,
    ) -> None:
        """`output` [vocabulary of this rank, hidden]; `reduce` sums over tensor ranks in place, None: there is one."""
        self.call = library(_SOURCE).rlpt_decode
        self.reduce, self.head_size, self.hidden = reduce, head_size, output.shape[1]
        self.ffn, self.vocabulary = layers[0].down.shape[1], output.shape[0]
        self.qkv_width, self.width = layers[0].qkv.shape[0], layers[0].proj.shape[1]
        self.kept = [_laid_out(layer) for layer in layers]
        self.ends = (final_norm, panels(output))
        self.layers = (_Layer * len(layers))(*(_Layer(*map(Tensor.data_ptr, weights)) for weights in self.kept))
        per_group = self.width // groups // head_size
        sizes = (len(layers), self.hidden, groups, per_group, head_size, self.ffn, self.vocabulary)
        ends = map(Tensor.data_ptr, self.ends)
        self.model = _Model(*sizes, epsilon, ctypes.cast(self.layers, _Pointer), *ends)

    def __call__(
        self, hidden: Tensor, slots: Tensor, positions: Tensor, angles: Tensor, cache: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Runs n tokens and leaves their keys and values in the cache.

        hidden [n, hidden] f32: their embeddings (overwritten); slots and positions [n] i64: where each stands in
        `cache` [layers, 2, slots, groups, capacity, head]; angles [n, head / 2]; wanted [m] i64. Returns the hidden
        states [m, hidden] after the final norm of the wanted tokens and their logits [m, vocabulary of this rank].
        A token attends to columns 0 to its position of its slot.
        """
        count, most = len(hidden), len(wanted)
        slots, positions, wanted = slots.contiguous(), positions.contiguous(), wanted.contiguous()
        cos, sin = angles.cos(), angles.sin()
        work = torch.empty(count * (self.hidden + self.width + max(self.ffn, self.qkv_width)))
        partial = torch.empty(count if self.reduce else 0, self.hidden)
        normed, logits = torch.empty(most, self.hidden), torch.empty(most, self.vocabulary)
        failures: list[BaseException] = []

        def reduce() -> int:
            assert self.reduce is not None
            try:
                self.reduce(partial)
            except BaseException as error:  # goes on below: C++ can't carry it
                failures.append(error)
            return len(failures)

        one_pass = _Pass(
            count,
            *map(Tensor.data_ptr, (slots, positions, cos, sin, hidden, cache)),
            *(cache.shape[2], cache.shape[4], most),
            *map(Tensor.data_ptr, (wanted, normed, logits, work, partial)),
            _Reduce(reduce) if self.reduce else _Reduce(),
            torch.get_num_threads(),
        )
        self.call(ctypes.byref(self.model), ctypes.byref(one_pass))
        if failures:
            raise failures[0]
        return normed, logits


def _laid_out(layer: LayerTensors) -> LayerTensors:
    return LayerTensors(
        layer.input_norm,
        panels(layer.qkv),
        panels(layer.proj),
        layer.mlp_norm,
        gated_panels(layer.gate_up),
        panels(layer.down),
    )


def panels(weight: Tensor) -> Tensor:
    """[out, in] -> [ceil(out / 32), in, 32]: 32 outputs side by side, zeros for those that there are not."""
    outputs, inputs = weight.shape
    found = weight.new_zeros(-(-outputs // _PANEL), inputs, _PANEL)
    whole = outputs // _PANEL
    found[:whole] = weight[: whole * _PANEL].view(whole, _PANEL, inputs).transpose(1, 2)
    if outputs % _PANEL:
        found[whole, :, : outputs % _PANEL] = weight[whole * _PANEL :].t()
    return found


def gated_panels(weight: Tensor) -> Tensor:
    """[2 * ffn, in], gate above up -> [ceil(ffn / 16), in, 32]: 16 gates beside their 16 ups."""
    ffn, inputs = weight.shape[0] // 2, weight.shape[1]
    found = weight.new_zeros(-(-ffn // _LANES), inputs, 2, _LANES)
    whole = ffn // _LANES
    halves = weight.view(2, ffn, inputs)
    found[:whole] = halves[:, : whole * _LANES].view(2, whole, _LANES, inputs).permute(1, 3, 0, 2)
    if ffn % _LANES:
        found[whole, :, :, : ffn % _LANES] = halves[:, whole * _LANES :].permute(2, 0, 1)
    return found
