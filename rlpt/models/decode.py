"""Cached decoding on the training module's own parameters: no second model, and no rows that wait for each other.

The cache has slots. A row's token number j stands in column j of its slot, whatever stands in the other slots, so rows
of any lengths decode side by side, a slot can be given to another row at any step, and keys and values can be kept
for a later batch that goes on from them. Every tensor rank holds its heads' cache and makes the logits of its columns
of the vocabulary (`Decoder.gather` makes whole rows of them); rows are the same on all tensor ranks. Equality with the
training forward is tested (tests/distributed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlpt.distributed.mesh import Mesh
from rlpt.kernels.compiled_decode import CompiledDecode, LayerTensors, can_compile
from rlpt.kernels.hardware import can_be_same, on_gpu, suits_triton, wide_product
from rlpt.models.decode_graphs import StepGraphs
from rlpt.models.gpt import GPT
from rlpt.models.layers import gated_infer
from rlpt.models.lora import merged_weight
from rlpt.models.packed_linear import Linear, linear


class LayerWeights(NamedTuple):
    """This rank's shards of a layer's linear maps, adapters merged."""

    qkv: Tensor  # [(heads + 2 * groups) / tensor size * d, hidden], by group: its queries, its key, its value
    proj: Tensor  # [hidden, heads / tensor size * d]
    fc1: Tensor  # [2 * ffn / tensor size, hidden], gate above up
    fc2: Tensor  # [hidden, ffn / tensor size]


def layer_weights(layer: Any) -> LayerWeights:
    """Of one decoder layer. Parameters themselves where there is no adapter."""
    attention, mlp = layer.self_attention, layer.mlp
    linears = (attention.linear_qkv, attention.linear_proj, mlp.linear_fc1, mlp.linear_fc2)
    return LayerWeights(*map(merged_weight, linears))


class Known(NamedTuple):
    """Which rows of a batch begin with tokens whose keys and values are at rest, n in all."""

    rested: Tensor  # [layers, 2, rows at rest, groups / tensor size, columns, d]: keys and values, from column 0 on
    at: Tensor  # [n] i64: rows of `rested`
    rows: Tensor  # [n] i64: rows of the batch
    lengths: Tensor  # [n] i64: how many tokens; fewer than the row's prompt has


class Layer(NamedTuple):
    """What a layer of the decoder reads."""

    input_norm: Any  # models.layers.RMSNorm
    qkv: Linear
    proj: Linear
    mlp_norm: Any
    fc1: Linear
    fc2: Linear


class Decoder:
    """The policy's weights in the form that decoding reads. They must not change while it is in use."""

    def __init__(self, gpt: GPT, mesh: Mesh, vocab_size: int, is_long: bool = False, may_compile: bool = True) -> None:
        """`is_long`: it will run so many steps that weights laid out for them pay for the copy; compiled code, which
        `may_compile` allows on a CPU, lays them out in any case."""
        config = gpt.config
        self.mesh, self.vocab_size, self.num_layers = mesh, vocab_size, len(gpt.decoder.layers)
        self.head_size = int(config.kv_channels or 0)
        self.groups = config.num_query_groups // mesh.tensor.size
        self.heads_per_group = config.num_attention_heads // config.num_query_groups
        self.weight = gpt.embedding.word_embeddings.weight
        self.residual_dtype = torch.promote_types(self.weight.dtype, torch.float32)
        self.final_norm = gpt.decoder.final_layernorm
        self.compiled = self._compiled(gpt) if may_compile and can_compile(self.weight) else None
        if self.compiled is None:
            self.layers = [self._layer(layer, is_long) for layer in gpt.decoder.layers]
            # after a layer's parts: the layer's second norm, and the next one's first or the last of all
            self.norms_after = [*(layer.input_norm for layer in self.layers[1:]), self.final_norm]
            self.head = self._wide_head(gpt.head_weight(), is_long)
        self.has_kernel = suits_triton(self.weight) and _kernel_takes(self.head_size)
        self.has_graphs = self.has_draw_kernel = self.has_kernel and mesh.tensor.size == 1
        shapes = *self.weight.shape, self.heads_per_group, self.groups, self.head_size, config.ffn_hidden_size
        alignments = (parameter.data_ptr() % 16 for parameter in gpt.parameters())  # Triton compiles for each
        self.kind = (self.weight.dtype, self.weight.device, shapes, *alignments)  # of the kernels that a step runs
        self.inverse = gpt.rotary_pos_emb.inv_freq.to(self.weight.device, torch.float32)

    @staticmethod
    def _layer(layer: Any, is_long: bool) -> Layer:
        qkv, proj, fc1, fc2 = (linear(weight, is_long) for weight in layer_weights(layer))
        return Layer(layer.input_layernorm, qkv, proj, layer.pre_mlp_layernorm, fc1, fc2)

    def _compiled(self, gpt: GPT) -> CompiledDecode:
        layers = []
        for layer in gpt.decoder.layers:
            qkv, proj, fc1, fc2 = layer_weights(layer)
            norms = layer.input_layernorm.weight, layer.pre_mlp_layernorm.weight
            layers.append(LayerTensors(norms[0], qkv, proj, norms[1], fc1, fc2))
        reduce = self.mesh.tensor.all_reduce if self.mesh.tensor.size > 1 else None
        final = gpt.decoder.final_layernorm
        return CompiledDecode(layers, final.weight, gpt.head_weight(), self.groups, self.head_size, final.eps, reduce)

    @staticmethod
    def _wide_head(weight: Tensor, is_long: bool) -> Linear:
        """The output layer, with logits in float32."""
        if on_gpu(weight):
            return lambda hidden: wide_product(hidden, weight.t())
        narrow = linear(weight, is_long)
        return lambda hidden: narrow(hidden).float()

    def empty(self, slots: int, capacity: int, is_kept: bool = False) -> DecodeState:
        """A cache of so many slots, each for so many tokens; `is_kept`: others may go on from what it holds."""
        return DecodeState(self, slots, capacity, is_kept)

    @torch.no_grad()
    def prefill(
        self, tokens: Tensor, lengths: Tensor, known: Sequence[Known] = (), capacity: int = 0
    ) -> tuple[DecodeState, Tensor]:
        """Runs prompts through the model.

        tokens [rows, P] i64, aligned left (row i's prompt is its first `lengths[i]` columns). Returns the state, with
        room for P tokens (or `capacity`), and this rank's logits [rows, V / tensor size] of the first new token,
        float32. Of rows that are `known`, only what is new runs.
        """
        state = self.empty(tokens.shape[0], max(capacity, tokens.shape[1]), is_kept=bool(known))
        start = torch.zeros_like(lengths)
        for part in known:
            start[part.rows] = part.lengths
            state.recall(part)
        fresh = lengths - start
        if known:
            block = torch.arange(int(fresh.max()), device=tokens.device)
            columns = (start[:, None] + block).clamp(max=tokens.shape[1] - 1)
            tokens = tokens.gather(1, columns)
        return state, state.read(tokens, start if known else None, fresh)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos and sin [..., 1, 1, d] of Megatron's rotary frequencies in the weights' dtype, as in
        training; the sign of the rotation by halves is in the sine."""
        angles = positions[..., None].float() * self.inverse
        sin, cos = angles.sin().to(self.weight.dtype), angles.cos().to(self.weight.dtype)
        return torch.cat([cos, cos], -1)[..., None, None, :], torch.cat([-sin, sin], -1)[..., None, None, :]

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens [...] -> hidden [..., H]."""
        if self.mesh.tensor.size == 1:
            return F.embedding(tokens, self.weight)
        local = tokens - self.mesh.tensor.rank * self.weight.shape[0]
        mine = (local >= 0) & (local < self.weight.shape[0])
        return self.reduce(self.weight[local.clamp(0, self.weight.shape[0] - 1)] * mine[..., None])

    def reduce(self, partial: Tensor) -> Tensor:
        """The sum over tensor ranks."""
        return self.mesh.tensor.all_reduce(partial.contiguous())

    def gather(self, logits: Tensor) -> Tensor:
        """This rank's logits [rows, padded V / tensor size] -> whole rows [rows, V], without padding, on every rank."""
        if self.mesh.tensor.size > 1:
            logits = torch.cat(self.mesh.tensor.all_gather(logits).unbind(0), dim=-1)
        return logits[:, : self.vocab_size]


class DecodeState:
    """Keys and values of rows: `cache` [layers, 2, slots, groups / tensor size, capacity, d]."""

    def __init__(self, decoder: Decoder, slots: int, capacity: int, is_kept: bool) -> None:
        self.decoder = decoder
        shape = (decoder.num_layers, 2, slots, decoder.groups, capacity, decoder.head_size)
        # torch's attention needs finite numbers where it masks them, the kernel does not read there
        make = torch.empty if decoder.has_kernel and not is_kept else torch.zeros
        self.cache = make(shape, dtype=decoder.weight.dtype, device=decoder.weight.device)
        self.hidden = decoder.weight  # [rows, H] after the final norm, of each row's last token: what heads read
        self.slots = torch.arange(slots, device=decoder.weight.device)
        model = (decoder.kind, self.cache.stride(2) >> 31 > 0)  # Triton compiles for wider strides, too
        self.graphs = StepGraphs(slots, decoder.weight.device, model) if decoder.has_graphs else None

    def place(self, slots: Tensor | slice, source: DecodeState, rows: Tensor | slice) -> None:
        """Puts rows [n] of another state (a row may come several times) into slots [n]; slices where they are side by
        side are one copy."""
        columns = min(source.cache.shape[4], self.cache.shape[4])  # prompts read beside a longer one stand in more
        self.cache[:, :, slots, :, :columns] = source.cache[:, :, rows, :, :columns]

    def move(self, to: Tensor, origin: Tensor, columns: int, swap: bool = False) -> None:
        """Puts slots `origin` [n] where slots `to` [n] are, and with `swap` the other way round, too; the first
        `columns` of them (all when swapped)."""
        if swap:
            self.cache[:, :, torch.cat([to, origin])] = self.cache[:, :, torch.cat([origin, to])]
        else:
            self.cache[:, :, to, :, :columns] = self.cache[:, :, origin, :, :columns]

    def recall(self, known: Known) -> None:
        """Puts tokens at rest where their rows begin."""
        columns = min(int(known.lengths.max()), self.cache.shape[4])
        self.cache[:, :, known.rows, :, :columns] = known.rested[:, :, known.at, :, :columns]

    @torch.no_grad()
    def step(self, tokens: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """One token each for the first n slots.

        tokens [n], `lengths` [n] i64: how many tokens stand in the slot before it, `longest` their maximum -> this
        rank's logits [n, V / tensor size] of the tokens after them, float32; with graphs, until the next step.
        """
        if self.decoder.compiled is not None:
            return self._run_compiled(tokens, self.slots[: len(tokens)], lengths, self.slots[: len(tokens)])
        if self.graphs is not None:
            self.graphs.fill(tokens, lengths)
            return self.step_inputs(len(tokens))
        self.hidden, logits = self.run_step(tokens, lengths, longest)
        return logits

    def inputs(self, live: int) -> tuple[Tensor, Tensor]:
        """With graphs: where tokens and lengths stand that `step_inputs` reads for so many live rows. Both are longer
        than `live` where more rows run; those need length -1."""
        assert self.graphs is not None
        rows = self.graphs.padded(live)
        return self.graphs.tokens[:rows], self.graphs.lengths[:rows]

    @torch.no_grad()
    def step_inputs(self, live: int) -> Tensor:
        """As `step`, for what stands in `inputs`."""
        assert self.graphs is not None
        self.hidden, logits = self.graphs.step(self.run_step, live)
        return logits

    def run_step(self, tokens: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """The step's hidden states [n, H] after the final norm, and this rank's logits. Rows of negative length
        are left out where the decoder has its kernel, and `longest` doesn't matter."""
        decoder, rows = self.decoder, len(tokens)
        turn = decoder.rotary(lengths)
        bias = None
        if not decoder.has_kernel:
            columns = torch.arange(longest + 1, device=tokens.device)
            bias = torch.where(columns <= lengths[:, None], 0.0, -torch.inf).to(self.cache.dtype)[:, None, None]
        hidden = decoder.embed(tokens).to(decoder.residual_dtype)
        normal = decoder.layers[0].input_norm.infer(hidden)
        for cache, layer, norm_after in zip(self.cache, decoder.layers, decoder.norms_after):
            qkv = layer.qkv(normal)
            qkv = qkv.view(rows, decoder.groups, decoder.heads_per_group + 2, decoder.head_size)
            out = self._attend_one(cache, qkv, turn, lengths, bias)
            hidden, normal = layer.mlp_norm.infer_sum(hidden, decoder.reduce(layer.proj(out)))
            hidden, normal = norm_after.infer_sum(hidden, self._mlp(layer, normal))
        return normal, decoder.head(normal)

    def _attend_one(
        self, cache: Tensor, qkv: Tensor, turn: tuple[Tensor, Tensor], lengths: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Stores each row's key and value; qkv [n, groups, heads of one + 2, d] -> [n, heads * d]."""
        rows, scale = len(qkv), self.decoder.head_size**-0.5
        if bias is None:
            from rlpt.kernels.decode_attention import attend_and_store

            return attend_and_store(qkv, turn, lengths, cache[0], cache[1], scale)
        slots, end = self.slots[:rows], bias.shape[-1]
        turned = _rotate(qkv[:, :, :-1], *turn)
        cache[0][slots, :, lengths] = turned[:, :, -1]
        cache[1][slots, :, lengths] = qkv[:, :, -1]
        # a group's queries stand as rows of one attention: the key is read once
        out = F.scaled_dot_product_attention(
            turned[:, :, :-1], cache[0, :rows, :, :end], cache[1, :rows, :, :end], attn_mask=bias, scale=scale
        )
        return out.reshape(rows, -1)

    def _run_compiled(self, tokens: Tensor, slots: Tensor, positions: Tensor, wanted: Tensor) -> Tensor:
        """Tokens [n] that go to columns `positions` of `slots`; this rank's logits [m, V / tensor size] after the
        `wanted` of them."""
        decoder = self.decoder
        assert decoder.compiled is not None
        angles = positions[:, None].float() * decoder.inverse
        self.hidden, logits = decoder.compiled(decoder.embed(tokens), slots, positions, angles, self.cache, wanted)
        return logits

    def read(self, tokens: Tensor, start: Tensor | None, fresh: Tensor) -> Tensor:
        """A block for all slots: tokens [rows, q], of which row i's first `fresh[i]` are real and stand from column
        `start[i]` on (None: 0); this rank's logits [rows, V / tensor size] after each row's last one."""
        decoder, (rows, width) = self.decoder, tokens.shape
        if decoder.compiled is not None:
            row, column = (torch.arange(width) < fresh[:, None]).nonzero(as_tuple=True)
            positions = column if start is None else column + start[row]
            return self._run_compiled(tokens[row, column], row, positions, fresh.cumsum(0) - 1)
        positions = torch.arange(width, device=tokens.device).expand(rows, -1)
        mask, end = None, width
        if start is not None:
            positions = positions + start[:, None]
            end = int((start + fresh).max())
            mask = (torch.arange(end, device=tokens.device) <= positions[..., None])[:, None]
        turn = decoder.rotary(positions)
        hidden = decoder.embed(tokens).to(decoder.residual_dtype)
        normal = decoder.layers[0].input_norm.infer(hidden)
        for cache, layer, norm_after in zip(self.cache, decoder.layers, decoder.norms_after):
            out = layer.proj(self._attend(cache, layer, normal, turn, positions, mask, end))
            hidden, normal = layer.mlp_norm.infer_sum(hidden, decoder.reduce(out))
            if norm_after is decoder.final_norm:  # of a few rows alone
                hidden = hidden + self._mlp(layer, normal)
            else:
                hidden, normal = norm_after.infer_sum(hidden, self._mlp(layer, normal))
        self.hidden = decoder.final_norm.infer(hidden[self.slots, fresh - 1])
        return decoder.head(self.hidden)

    def _attend(
        self,
        cache: Tensor,
        layer: Layer,
        normal: Tensor,
        turn: tuple[Tensor, Tensor],
        positions: Tensor,
        mask: Tensor | None,
        end: int,
    ) -> Tensor:
        decoder, (rows, width, _) = self.decoder, normal.shape
        heads = decoder.heads_per_group
        qkv = layer.qkv(normal).view(rows, width, decoder.groups, heads + 2, decoder.head_size)
        turned = self._turn(qkv[..., :-1, :], *turn)
        if mask is None:
            cache[0, :, :, :width] = turned[..., -1, :].transpose(1, 2)
            cache[1, :, :, :width] = qkv[..., -1, :].transpose(1, 2)
        else:
            # padding after a row's last token falls beside its tokens or on no column at all
            at = positions < end
            row, column = at.nonzero(as_tuple=True)
            cache[0][row, :, positions[at]] = turned[..., -1, :][row, column]
            cache[1][row, :, positions[at]] = qkv[..., -1, :][row, column]
        query = turned[..., :-1, :].reshape(rows, width, -1, decoder.head_size)
        if can_be_same(query, decoder.head_size):
            from rlpt.kernels.causal_attention import causal_attention

            keys, values = (one[:, :, :end].transpose(1, 2) for one in cache)
            starts = None if mask is None else positions[:, 0]
            return causal_attention(query, keys, values, decoder.head_size**-0.5, starts).reshape(rows, width, -1)
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            cache[0, :, :, :end],
            cache[1, :, :, :end],
            attn_mask=mask,
            is_causal=mask is None,
            scale=decoder.head_size**-0.5,
            enable_gqa=heads > 1,
        )
        return out.transpose(1, 2).reshape(rows, width, -1)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [rows, width, groups, heads, d] turned by cos and sin [rows, width, 1, 1, d]."""
        if not self.decoder.has_kernel:
            return _rotate(x, cos, sin)
        from rlpt.kernels.layers_triton import turned

        groups, half = x.shape[2], x.shape[-1] // 2
        cos, sin = (one.flatten(0, 1).expand(-1, groups, -1, -1) for one in (cos[..., :half], sin[..., half:]))
        return turned(x.flatten(0, 1), cos, sin, -1).view(x.shape)

    def _mlp(self, layer: Layer, normal: Tensor) -> Tensor:
        return self.decoder.reduce(layer.fc2(gated_infer(layer.fc1(normal))))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., heads, d] turned by its position's angles [..., 1, d]; the first half's sine is negative."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


def _kernel_takes(head_size: int) -> bool:
    from rlpt.kernels.attention_block import can_attend

    return can_attend(head_size)
