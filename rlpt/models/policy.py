"""The policy: one set of weights that scores batches for the objectives and decodes for the rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from rlpt.batch import Batch, Rows, Scores
from rlpt.distributed.device import Device
from rlpt.distributed.mesh import Mesh
from rlpt.kernels.linear_logprob import LinearLogprob, SlopesOf, linear_logprob
from rlpt.models.decode import Decoder
from rlpt.models.gpt import GPT

# Scores of some tokens [1, n] and their batch -> the derivative of the loss in those scores, up to a common factor.
LossSlopes = Callable[[Scores, Batch], Scores]


class Policy:
    """Scores and decodes with the training weights in place. `vocab_size` is the tokenizer's, without padding."""

    def __init__(self, gpt: GPT, mesh: Mesh, device: Device, vocab_size: int) -> None:
        self.gpt = gpt
        self.mesh = mesh
        self.device = device
        self.vocab_size = vocab_size

    def forward(self, batch: Rows, module: Any = None, exact: bool = False) -> Tensor:
        """This stage's output: hidden states [T, B, H] (after the final norm on the last stage).

        `module` is the data-parallel wrapper in training. Attention is the sampler's to the last bit where rows were
        sampled, or with `exact`, if the device has kernels for that.
        """
        exact = exact or batch.is_sampled
        layout = self.gpt.layout(batch.positions, batch.segments, batch.parents, exact)
        return (module or self.gpt)(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=layout)

    def scores(self, hidden: Tensor, batch: Batch, slopes: LossSlopes | None = None, first: int = 0) -> Scores:
        """Last stage only: log-probs of the labels, entropies, and values of the batch's head; 0 off `loss_mask`.

        `hidden` is of the batch, or of rows that it is a part of, where its positions begin at `first` of all. Only
        rows with a loss are projected; the vocabulary is never gathered. Where `slopes` foretells the loss's derivative
        from a token's own scores, the output layer's gradient is made in this pass.
        """
        return self.scores_at(hidden, batch, batch.loss_mask.flatten().nonzero().squeeze(1), slopes, first)

    def scores_at(
        self, hidden: Tensor, batch: Batch, live: Tensor, slopes: LossSlopes | None = None, first: int = 0
    ) -> Scores:
        """The same for the label positions `live` [N] i64 of the batch's flattened rows."""
        if self.gpt.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        rows = hidden.transpose(0, 1).reshape(-1, hidden.shape[-1]).index_select(0, live + first)
        values = None
        if batch.head:
            assert batch.head in self.gpt.heads, f"no head '{batch.head}'; the model has {sorted(self.gpt.heads)}"
            seen = rows.detach() if batch.head_alone else rows
            values = self.gpt.heads[batch.head](seen)  # whole on every tensor rank: its gradient must not be summed
        # The kernel's gradient is a part on each tensor rank and is summed, on the chosen rows: Megatron reduces a
        # gradient that is not contiguous into a copy and loses it.
        rows = copy_to_tensor_model_parallel_region(rows)
        weight = self.gpt.head_weight()
        result = linear_logprob(
            rows,
            weight,
            batch.labels.flatten()[live],
            vocab_start=self.mesh.tensor.rank * weight.shape[0],
            vocab_size=self.vocab_size,
            group=self.mesh.tensor.group if self.mesh.tensor.size > 1 else None,
            temperature=batch.temperature or 1.0,
            legal_table=batch.legal_table,
            legal_index=None if batch.legal_index is None else batch.legal_index.flatten()[live],
            candidates=None if batch.candidates is None else batch.candidates.flatten(0, 1)[live],
            slopes=None if slopes is None else _slopes_by_rows(slopes, batch, live, values),
        )
        return Scores(
            logprobs=_spread(result.logprobs, live, batch.labels.shape),
            entropy=_spread(result.entropy, live, batch.labels.shape),
            candidate_logprobs=None
            if result.candidate_logprobs is None
            else _spread(result.candidate_logprobs, live, batch.labels.shape),
            values=None if values is None else _spread(values, live, batch.labels.shape),
        )

    @torch.no_grad()
    def score(self, batch: Batch) -> Scores:
        """The same without gradients, on every rank of the replica, any pipeline size."""
        batch = batch.to(self.device.torch_device)
        found: list[Scores] = []

        def forward_step(_: Iterator[Any], module: Any) -> tuple[Tensor, Any]:
            output = self.forward(batch, module, exact=True)

            def keep_scores(hidden: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
                found.append(self.scores(hidden, batch))
                return hidden.new_zeros(()), torch.zeros((), dtype=torch.int, device=hidden.device), {}

            return output, keep_scores

        with self.device.megatron():
            get_forward_backward_func()(
                forward_step_func=forward_step,
                data_iterator=iter(()),
                model=[self.gpt],
                num_microbatches=1,
                seq_length=batch.tokens.shape[1],
                micro_batch_size=batch.tokens.shape[0],
                forward_only=True,
            )
        if self.mesh.pipeline.size == 1:
            return found[0]
        return self._from_last_stage(found[0] if found else None, batch)

    def _from_last_stage(self, scores: Scores | None, batch: Batch) -> Scores:
        """The last stage's scores on all stages (None on the others), by one broadcast of [B, T, 2 (+ 1) (+ K)]."""
        num_values = int(bool(batch.head))
        num_candidates = 0 if batch.candidates is None else batch.candidates.shape[-1]
        if scores is None:
            shape = (*batch.labels.shape, 2 + num_values + num_candidates)
            dtype = torch.promote_types(self.device.dtype, torch.float32)
            packed = torch.empty(shape, dtype=dtype, device=self.device.torch_device)
        else:
            single = [one[..., None] for one in (scores.logprobs, scores.entropy, scores.values) if one is not None]
            more = [] if scores.candidate_logprobs is None else [scores.candidate_logprobs]
            packed = torch.cat(single + more, -1)
        packed = self.mesh.broadcast_from_last_stage(packed)
        return Scores(
            logprobs=packed[..., 0],
            entropy=packed[..., 1],
            candidate_logprobs=packed[..., 2 + num_values :] if batch.candidates is not None else None,
            values=packed[..., 2] if batch.head else None,
        )

    def decoder(self, is_long: bool = False) -> Decoder:
        """What reads prompts and draws on from them, with the weights as they are now; see models/decode.py."""
        return Decoder(self.gpt, self.mesh, self.vocab_size, is_long)


def _slopes_by_rows(slopes: LossSlopes, batch: Batch, live: Tensor, values: Tensor | None) -> SlopesOf:
    """`slopes` as the output layer asks for them: rows of the live label positions."""

    def of_rows(rows: slice, result: LinearLogprob) -> LinearLogprob:
        candidates = result.candidate_logprobs
        scores = Scores(
            logprobs=result.logprobs[None],
            entropy=result.entropy[None],
            candidate_logprobs=None if candidates is None else candidates[None],
            values=None if values is None else values.detach()[rows][None],
        )
        found = slopes(scores, batch.tokens_at(live[rows]))
        candidates = found.candidate_logprobs
        return LinearLogprob(found.logprobs[0], found.entropy[0], None if candidates is None else candidates[0])

    return of_rows


def _spread(values: Tensor, live: Tensor, shape: torch.Size) -> Tensor:
    """Values of the live label positions -> [B, T, ...] with 0 elsewhere."""
    out = values.new_zeros(shape.numel(), *values.shape[1:])
    return out.index_copy(0, live, values).view(*shape, *values.shape[1:])
