"""Worker of the Triton tests: runs every check in Triton's interpreter and writes {name: what went wrong}.

Started as `TRITON_INTERPRET=1 python interpreted_head.py OUT [slow]`; not a test module itself. The interpreter takes
some 10 ms a tile whatever its size, so tiles are large; bf16 is wrong in it, so inputs are f32 and f16.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from rlpt.kernels import triton_head, triton_one_pass
from rlpt.kernels.linear_logprob import LinearLogprob, linear_logprob
from rlpt.kernels.triton_head import Tiles, TritonHead
from rlpt.kernels.vocabulary_shard import (
    Gradients,
    Rows,
    Scored,
    Shard,
    Slopes,
    finish,
    merge,
    owned_columns,
    unknown_ids,
)

HIDDEN, ROWS, CANDIDATES = 40, 13, 2
BOUND = {torch.float32: 1e-5, torch.float16: 2e-3}  # of f16 the gradients' own rounding; figures are within 1e-5 too


def inputs(vocab: int, shift: float = 0.0, dtype: torch.dtype = torch.float32, rows: int = ROWS):
    """Rows whose logits are all shifted, labels at both ends and at edges of tiles, sets that leave most ids out."""
    generator = torch.Generator().manual_seed(vocab)
    hidden = torch.randn(rows, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(vocab + 7, HIDDEN, generator=generator).to(dtype)
    if shift:
        hidden, weight = hidden.clone(), weight.clone()
        hidden[:, 0], weight[:, 0] = 1, shift
    edges = torch.tensor([0, vocab - 1, 255, 256, 511, 512, vocab // 3, 2 * vocab // 3]).clamp(max=vocab - 1)
    labels = edges.repeat(1 + rows // 8)[:rows]
    candidates = torch.stack([labels.flip(0), (labels + 1) % vocab], 1)
    table = torch.zeros(3, vocab, dtype=torch.bool)
    table[0] = True
    table[1, :: max(1, vocab // 50)] = True
    table[2, labels] = True
    return hidden, weight, labels, candidates, (table, torch.arange(rows) % 3)


def exact(hidden, weight, labels, candidates, vocab, temperature, legal, slopes):
    """Figures and gradients by log_softmax in float64."""
    leaves = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    logits = (leaves[0] @ leaves[1].t() / temperature)[:, :vocab]
    if legal is not None:
        logits = logits.masked_fill(~legal[0][legal[1]], -torch.inf)
    logprobs = logits.log_softmax(1)
    entropy = -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0)).sum(1)
    chosen = logprobs.gather(1, torch.cat([labels[:, None], candidates], 1))
    finite = chosen.masked_fill(chosen == -torch.inf, 0)
    ((finite * slopes.chosen).sum() + (entropy * slopes.entropy).sum()).backward()
    return chosen.detach(), entropy.detach(), leaves[0].grad, leaves[1].grad


def slopes_for(rows: int, legal_chosen: torch.Tensor | None = None) -> Slopes:
    chosen = torch.linspace(-1, 2, rows * (1 + CANDIDATES)).view(rows, -1)
    return Slopes(chosen if legal_chosen is None else chosen.masked_fill(~legal_chosen, 0), torch.linspace(1, -2, rows))


def close(got: torch.Tensor, want: torch.Tensor, bound: float) -> None:
    """Within `bound` of the largest finite value; the same places are infinite."""
    assert torch.equal(got.isinf(), want.isinf())
    got, want = (one.double().masked_fill(one.isinf(), 0) for one in (got, want))
    scale = max(1.0, float(want.abs().max()))
    assert float((got - want).abs().max()) <= bound * scale, float((got - want).abs().max()) / scale


def check_whole(
    vocab, shift=0.0, dtype=torch.float32, masked=False, temperature=0.7, rows=ROWS, one_pass=False, factor=1.0
):
    """linear_logprob on the Triton backend against float64."""
    hidden, weight, labels, candidates, legal = inputs(vocab, shift, dtype, rows)
    table, index = legal if masked else (None, None)
    ids = torch.cat([labels[:, None], candidates], 1)
    slopes = slopes_for(rows, table[index].gather(1, ids) if masked else None)
    leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]

    def foretold(at, figures):
        part = slopes[at]
        return LinearLogprob(part.chosen[:, 0], part.entropy, part.chosen[:, 1:])

    result = linear_logprob(
        *leaves, labels, vocab_start=0, vocab_size=vocab, temperature=temperature, legal_table=table, legal_index=index,
        candidates=candidates, backend="triton", chunk_size=7 if one_pass else None,
        slopes=foretold if one_pass else None,
    )  # fmt: skip
    chosen = torch.cat([result.logprobs[:, None], result.candidate_logprobs], 1)
    finite = chosen.masked_fill(chosen == -torch.inf, 0)
    (factor * ((finite * slopes.chosen).sum() + (result.entropy * slopes.entropy).sum())).backward()
    slopes = slopes.scaled(factor)
    want = exact(hidden, weight, labels, candidates, vocab, temperature, legal if masked else None, slopes)
    figures = 1e-5 * (1 + abs(shift))
    close(chosen.detach(), want[0], figures)
    close(result.entropy.detach(), want[1], figures)
    for got, of in zip(leaves, want[2:]):
        assert vocab == 1 or float(of.abs().max()) > 0.1
        close(got.grad, of, BOUND[dtype] * (1 + abs(shift) / 20))
    assert not leaves[1].grad[vocab:].any(), "padding columns must not learn"


def check_shards(edges: list[int], vocab: int) -> None:
    """Uneven shards, one of padding alone, their statistics merged as the collective does it."""
    hidden, weight, labels, candidates, _ = inputs(vocab)
    ids, slopes = torch.cat([labels[:, None], candidates], 1), slopes_for(ROWS)
    heads, rows = [], []
    for begin, end in itertools.pairwise(edges):
        heads.append(TritonHead(weight[begin:end], Shard(begin, vocab, 1.0, None)))
        rows.append(Rows(hidden, *owned_columns(ids, begin, end - begin), None))
    parts = torch.stack([head.statistics(one) for head, one in zip(heads, rows)])
    finished = finish(merge(parts), unknown_ids(ids, vocab), None)
    want = exact(hidden, weight, labels, candidates, vocab, 1.0, None, slopes)
    close(finished.chosen, want[0], 1e-5)
    close(finished.entropy, want[1], 1e-5)
    summed = torch.zeros_like(hidden)
    for head, one, begin, end in zip(heads, rows, edges, edges[1:], strict=False):
        into = Gradients(torch.empty_like(hidden), torch.zeros(end - begin, HIDDEN))
        head.gradients(one, finished, slopes, into)
        summed += into.hidden
        close(into.weight, want[3][begin:end], 1e-5)
    close(summed, want[2], 1e-5)


def check_held(dtype=torch.float32, held_rows=0, wanted=(True, True), factor=0.75, masked=False) -> None:
    """One pass by chunks of 4 rows, through a buffer for some rows or all (0), and what it gives in which dtype."""
    vocab, temperature = 300, 0.7
    hidden, weight, labels, candidates, legal = inputs(vocab, dtype=dtype)
    ids = torch.cat([labels[:, None], candidates], 1)
    table, index = legal if masked else (None, None)
    slopes = slopes_for(ROWS, table[index].gather(1, ids) if masked else None)
    illegal = None if table is None else torch.cat([~table, torch.ones(3, 7, dtype=torch.bool)], 1)
    held_bytes = (held_rows or ROWS) * 320 * weight.element_size()  # 307 columns, rounded up to 16
    head = TritonHead(weight, Shard(0, vocab, temperature, illegal), chunk_size=4, held_bytes=held_bytes)
    making = head.one_pass(Scored(hidden, ids, index), None, wanted)
    for begin in range(0, ROWS, 4):
        at = slice(begin, min(begin + 4, ROWS))
        making.open(at)
        making.close(slopes[at])
    made = making.pending()(factor)
    scaled = slopes.scaled(factor)
    want = exact(hidden, weight, labels, candidates, vocab, temperature, legal if masked else None, scaled)[2:]
    for got, of, is_wanted in zip((made.hidden, made.weight), want, wanted, strict=True):
        assert (got is not None) == is_wanted
        if got is not None:
            assert float(of.abs().max()) > 0.1
            close(got, of, BOUND[dtype])
    if made.weight is not None:
        summed = torch.float32 if 0 < held_rows < ROWS else dtype
        assert made.weight.dtype == summed, f"{made.weight.dtype}: one buffer's gradient needs no wider sums"
    if made.hidden is not None:
        assert made.hidden.dtype == dtype


def _rank(rank: int, path: str, vocab: int, edges: list[int]) -> None:
    """A rank's shard in one pass by chunks, its gradients against the whole ones."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=len(edges) - 1)
    begin, end = edges[rank], edges[rank + 1]
    hidden, weight, labels, candidates, legal = inputs(vocab)
    ids = torch.cat([labels[:, None], candidates], 1)
    for table, index in ((None, None), legal):
        slopes = slopes_for(ROWS, None if table is None else table[index].gather(1, ids))
        leaves = [hidden.clone().requires_grad_(), weight[begin:end].clone().requires_grad_()]

        def foretold(at, figures, slopes=slopes):
            part = slopes[at]
            return LinearLogprob(part.chosen[:, 0], part.entropy, part.chosen[:, 1:])

        result = linear_logprob(
            *leaves, labels, vocab_start=begin, vocab_size=vocab, group=dist.group.WORLD, legal_table=table,
            legal_index=index, candidates=candidates, backend="triton", chunk_size=5, slopes=foretold,
        )  # fmt: skip
        chosen = torch.cat([result.logprobs[:, None], result.candidate_logprobs], 1)
        finite = chosen.masked_fill(chosen == -torch.inf, 0)
        ((finite * slopes.chosen).sum() + (result.entropy * slopes.entropy).sum()).backward()
        want = exact(hidden, weight, labels, candidates, vocab, 1.0, None if table is None else legal, slopes)
        dist.all_reduce(leaves[0].grad)
        for got, of in zip((chosen.detach(), result.entropy.detach(), leaves[0].grad), want):
            close(got, of, 1e-5)
        close(leaves[1].grad, want[3][begin:end], 1e-5)
    dist.destroy_process_group()


def check_ranks(edges: list[int], vocab: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, args=(f"{folder}/store", vocab, edges), nprocs=len(edges) - 1)


def check_splits() -> None:
    """Rows whose columns several programs reduce, some of them without a legal column, in several steps each."""
    shipped = triton_one_pass.SHIPPED
    triton_one_pass.SHIPPED = replace(shipped, split=512, repeats=2, lanes=64, columns=256)
    try:
        check_whole(1700, one_pass=True)
        check_whole(1700, one_pass=True, masked=True, shift=20.0)
    finally:
        triton_one_pass.SHIPPED = shipped


def check_again() -> None:
    """A wrong forecast, and a second backward, make the gradients again."""
    hidden, weight, labels, candidates, _ = inputs(300)
    slopes = slopes_for(ROWS)
    want = exact(hidden, weight, labels, candidates, 300, 1.0, None, slopes)

    def right(at, figures):
        part = slopes[at]
        return LinearLogprob(part.chosen[:, 0], part.entropy, part.chosen[:, 1:])

    for foretold, times in ((lambda at, figures: figures, 1), (right, 2)):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        result = linear_logprob(
            *leaves, labels, vocab_start=0, vocab_size=300, candidates=candidates, backend="triton", chunk_size=5,
            slopes=foretold,
        )  # fmt: skip
        chosen = torch.cat([result.logprobs[:, None], result.candidate_logprobs], 1)
        loss = (chosen * slopes.chosen).sum() + (result.entropy * slopes.entropy).sum()
        for _ in range(times):
            loss.backward(retain_graph=True)
        for got, of in zip(leaves, want[2:]):
            close(got.grad, times * of, 1e-5)


class _Waits(TorchDispatchMode):
    """Counts what a host would wait for a GPU for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if any(name in str(operation) for name in ("_local_scalar_dense", "nonzero", "equal.default", "unique")):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


def check_waits() -> None:
    """None in the forward pass, whatever is scored."""
    hidden, weight, labels, candidates, (table, index) = inputs(300)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    with _Waits() as waits:
        float(labels[0])
        assert waits.found, "the check itself finds nothing"
        waits.found.clear()
        result = linear_logprob(
            *leaves, labels, vocab_start=0, vocab_size=300, candidates=candidates, backend="triton", chunk_size=5,
            legal_table=table, legal_index=index, slopes=lambda at, found: found,
        )  # fmt: skip
    assert result.logprobs.requires_grad
    assert not waits.found, waits.found


def check_no_rows(one_pass: bool) -> None:
    hidden, weight, labels, candidates, _ = inputs(300, rows=0)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    result = linear_logprob(
        *leaves, labels, vocab_start=0, vocab_size=300, candidates=candidates, backend="triton",
        slopes=(lambda at, found: found) if one_pass else None,
    )  # fmt: skip
    (result.logprobs.sum() + result.entropy.sum()).backward()
    assert hidden.grad.shape == hidden.shape
    assert not weight.grad.any()
    assert result.candidate_logprobs.shape == (0, CANDIDATES)


CHECKS: dict[str, Callable[[], None]] = {
    **{
        f"vocabulary of {vocab}, logits shifted by {shift}": lambda vocab=vocab, shift=shift: check_whole(vocab, shift)
        for vocab in (1, 300, 5000)
        for shift in (0.0, -20.0, 20.0)
    },
    "legal sets": lambda: check_whole(300, masked=True),
    "one pass": lambda: check_whole(300, one_pass=True),
    "one pass with legal sets": lambda: check_whole(300, masked=True, one_pass=True),
    "one pass of splits": check_splits,
    "one pass, loss times a factor": lambda: check_whole(300, one_pass=True, factor=-0.3),
    "one pass in half precision": lambda: check_whole(300, dtype=torch.float16, one_pass=True, factor=3.0),
    "one pass waits for nothing": check_waits,
    "one pass foretold wrongly, or used twice": check_again,
    "one buffer": check_held,
    "one buffer in half precision": lambda: check_held(torch.float16),
    "several buffers": lambda: check_held(held_rows=9),
    "a buffer for each chunk, legal sets": lambda: check_held(held_rows=1, masked=True),
    "several buffers in half precision": lambda: check_held(torch.float16, held_rows=5),
    "several buffers, hidden alone": lambda: check_held(held_rows=8, wanted=(True, False)),
    "several buffers, weight alone": lambda: check_held(held_rows=8, wanted=(False, True)),
    "half precision": lambda: check_whole(300, dtype=torch.float16),
    "two uneven shards": lambda: check_shards([0, 256, 307], 300),
    "three shards, one of padding alone": lambda: check_shards([0, 11, 301, 307], 300),
    "two ranks and one of padding alone": lambda: check_ranks([0, 170, 301, 307], 300),
    "no rows": lambda: check_no_rows(one_pass=False),
    "one pass without rows": lambda: check_no_rows(one_pass=True),
}
SLOW: dict[str, Callable[[], None]] = {
    f"vocabulary of {vocab}{', one pass' * one_pass}": lambda vocab=vocab, one_pass=one_pass: check_whole(
        vocab, rows=3, one_pass=one_pass
    )
    for vocab in (151_936, 262_144)
    for one_pass in (False, True)
}


def main(out: Path, slow: bool) -> None:
    tiles = Tiles(rows=16, columns=8192 if slow else 512, inner=64)
    triton_head.SHIPPED.update(dict.fromkeys(triton_head.SHIPPED, tiles))
    found = {}
    for name, check in (SLOW if slow else CHECKS).items():
        try:
            check()
            found[name] = ""
        except Exception:  # reported by the test of that name
            found[name] = traceback.format_exc()
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "slow" in sys.argv[2:])
