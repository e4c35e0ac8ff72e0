"""Cached decoding on the training module's own parameters: no second model, and no weight copy unless it has adapters.

Prompts are aligned at their right ends, so that every row writes the same cache column. A row's tokens stand in columns
side by side, and its positions count from its first one, as in training; so keys and values can be moved to other
columns, and a later batch may go on from them. Every tensor rank holds its heads' cache; rows are the same on all
tensor ranks. Equality with the training forward is tested (tests/distributed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlpt.distributed.mesh import Mesh
from rlpt.models.gpt import GPT
from rlpt.models.lora import merged_weight


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


class Rested(NamedTuple):
    """Keys and values of rows that no longer grow: [layers][rows, groups / tensor size, columns, d]."""

    keys: list[Tensor]
    values: list[Tensor]
    first: Tensor  # [rows] i64: each row's first column with a token


class Known(NamedTuple):
    """Which rows of a batch begin with tokens whose keys and values are at rest, n in all."""

    rested: Rested
    at: Tensor  # [n] i64: rows of `rested`
    rows: Tensor  # [n] i64: rows of the batch
    lengths: Tensor  # [n] i64: how many tokens; fewer than the row's prompt has


class DecodeState:
    """KV cache of a batch of rows, and the weights that fill it, which must not change while it is in use.

    Shapes: keys and values [layers][rows, groups / tensor size, capacity, d].
    """

    def __init__(self, gpt: GPT, mesh: Mesh, rows: int, capacity: int, vocab_size: int) -> None:
        config = gpt.config
        self.gpt, self.mesh, self.vocab_size = gpt, mesh, vocab_size
        self.head_size = int(config.kv_channels or 0)
        self.groups = config.num_query_groups // mesh.tensor.size
        self.heads_per_group = config.num_attention_heads // config.num_query_groups
        self.weight = gpt.embedding.word_embeddings.weight
        self.layers = [layer_weights(layer) for layer in gpt.decoder.layers]
        shape = (rows, self.groups, capacity, self.head_size)
        empty = self.weight.new_empty
        self.keys = [empty(shape) for _ in gpt.decoder.layers]
        self.values = [empty(shape) for _ in gpt.decoder.layers]
        self.open = torch.zeros(rows, capacity, dtype=torch.bool, device=self.weight.device)  # columns with a token
        self.first = torch.zeros(rows, dtype=torch.int64, device=self.weight.device)  # the first of those of each row
        self.column = 0
        self.hidden = empty(rows, config.hidden_size)  # of the last column, after the final norm: what heads read
        self.cos, self.sin = _rotary_table(gpt, capacity, self.head_size)

    def select(self, rows: Tensor) -> DecodeState:
        """The state of some rows (an index [n]; a row may come several times): a group shares one prompt forward."""
        self.keys = [cache[rows] for cache in self.keys]
        self.values = [cache[rows] for cache in self.values]
        self.open, self.first, self.hidden = self.open[rows], self.first[rows], self.hidden[rows]
        return self

    def rest(self, rows: Tensor | None = None) -> Rested:
        """The cache of some rows (an index [n]; None: all, not copied), to go on from in another batch."""
        if rows is None:
            return Rested(self.keys, self.values, self.first)
        return Rested([one[rows] for one in self.keys], [one[rows] for one in self.values], self.first[rows])

    def recall(self, known: Known) -> None:
        """Puts tokens at rest where their rows begin."""
        steps = torch.arange(int(known.lengths.max()), device=known.lengths.device)
        item, step = (steps[None, :] < known.lengths[:, None]).nonzero(as_tuple=True)
        source = known.at[item], slice(None), known.rested.first[known.at[item]] + step
        target = known.rows[item], slice(None), self.first[known.rows[item]] + step
        for cache, rested in zip([*self.keys, *self.values], [*known.rested.keys, *known.rested.values], strict=True):
            cache[target] = rested[source]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """tokens [rows] -> logits [rows, V] of the tokens after them, float32, the same on all tensor ranks."""
        return self._advance(tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.bool))

    def _advance(self, tokens: Tensor, is_token: Tensor) -> Tensor:
        """tokens [rows, q] into columns column..column+q-1; logits after the last column."""
        start, end = self.column, self.column + tokens.shape[1]
        self.open[:, start:end] = is_token
        self.column = end
        mask = self.open[:, None, None, :end]
        if tokens.shape[1] > 1:
            columns = torch.arange(end, device=tokens.device)
            past = columns[None, :] <= columns[start:end, None]
            # a padding column attends to itself, so that no row of the softmax is empty
            itself = columns[None, :] == columns[start:end, None]
            mask = (mask & past) | itself
        positions = (torch.arange(start, end, device=tokens.device) - self.first[:, None]).clamp(min=0)
        turn = self.cos[positions], self.sin[positions]
        hidden = self._embed(tokens)
        for index, layer in enumerate(self.gpt.decoder.layers):
            hidden = hidden + self._attend(index, layer, hidden, mask, turn, start)
            inner = F.linear(layer.pre_mlp_layernorm(hidden), self.layers[index].fc1)
            gate, up = inner.chunk(2, dim=-1)
            hidden = hidden + self._reduce(F.linear(F.silu(gate) * up, self.layers[index].fc2))
        self.hidden = self.gpt.decoder.final_layernorm(hidden[:, -1])
        return self._gather(F.linear(self.hidden, self.gpt.head_weight()).float())

    def _attend(
        self, index: int, layer: Any, hidden: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor], start: int
    ) -> Tensor:
        rows, length, _ = hidden.shape
        end = start + length
        qkv = F.linear(layer.input_layernorm(hidden), self.layers[index].qkv)
        qkv = qkv.view(rows, length, self.groups, self.heads_per_group + 2, self.head_size)
        query = qkv[..., : self.heads_per_group, :].reshape(rows, length, -1, self.head_size)
        keys, values = self.keys[index], self.values[index]
        keys[:, :, start:end] = _rotate(qkv[..., -2, :], *turn).transpose(1, 2)
        values[:, :, start:end] = qkv[..., -1, :].transpose(1, 2)
        out = F.scaled_dot_product_attention(
            _rotate(query, *turn).transpose(1, 2),
            keys[:, :, :end],
            values[:, :, :end],
            attn_mask=mask,
            scale=self.head_size**-0.5,
            enable_gqa=self.heads_per_group > 1,
        )
        out = out.transpose(1, 2).reshape(rows, length, -1)
        return self._reduce(F.linear(out, self.layers[index].proj))

    def _embed(self, tokens: Tensor) -> Tensor:
        if self.mesh.tensor.size == 1:
            return self.weight[tokens]
        local = tokens - self.mesh.tensor.rank * self.weight.shape[0]
        mine = (local >= 0) & (local < self.weight.shape[0])
        return self._reduce(self.weight[local.clamp(0, self.weight.shape[0] - 1)] * mine[..., None])

    def _reduce(self, partial: Tensor) -> Tensor:
        return self.mesh.tensor.all_reduce(partial.contiguous())

    def _gather(self, local: Tensor) -> Tensor:
        """[rows, V / tensor size] -> [rows, V] on every tensor rank."""
        if self.mesh.tensor.size == 1:
            return local[:, : self.vocab_size]
        shards = [torch.empty_like(local) for _ in range(self.mesh.tensor.size)]
        torch.distributed.all_gather(shards, local.contiguous(), group=self.mesh.tensor.group)
        return torch.cat(shards, dim=-1)[:, : self.vocab_size]


@torch.no_grad()
def prefill(
    gpt: GPT,
    mesh: Mesh,
    tokens: Tensor,
    lengths: Tensor,
    capacity: int,
    vocab_size: int,
    known: Sequence[Known] = (),
) -> tuple[DecodeState, Tensor]:
    """Runs prompts through the model.

    tokens [rows, P] i64, aligned right (row i's prompt is its last `lengths[i]` columns); `capacity` is how many
    columns the cache holds in all. Returns the state and logits [rows, V] of the first new token, float32. Of rows
    that are `known`, only what is new runs: in all rows so many of the last tokens as the row with the most new ones
    has.
    """
    rows, width = tokens.shape
    assert width <= capacity, "the cache must hold the prompt"
    state = DecodeState(gpt, mesh, rows, capacity, vocab_size)
    state.first = width - lengths
    fresh = lengths.clone()
    for part in known:
        fresh[part.rows] -= part.lengths
    state.column = width - int(fresh.max())
    for cache in (*state.keys, *state.values):
        cache[:, :, : state.column] = 0  # what is masked must be finite all the same
    for part in known:
        state.recall(part)
    is_token = torch.arange(width, device=tokens.device)[None, :] >= state.first[:, None]
    state.open[:, : state.column] = is_token[:, : state.column]
    return state, state._advance(tokens[:, state.column :], is_token[:, state.column :])


def _rotary_table(gpt: GPT, positions: int, head_size: int) -> tuple[Tensor, Tensor]:
    """cos and sin [positions, 1, d] of Megatron's rotary frequencies."""
    inverse = gpt.rotary_pos_emb.inv_freq.to(gpt.embedding.word_embeddings.weight.device, torch.float32)
    angles = torch.outer(torch.arange(positions, device=inverse.device, dtype=torch.float32), inverse)
    angles = torch.cat([angles, angles], dim=-1)[:, None, :]
    assert angles.shape[-1] == head_size
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [rows, q, heads, d] turned by the angles [rows, q, 1, d] of its positions."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x * cos + turned * sin).to(x.dtype)
