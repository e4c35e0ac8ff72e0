"""The sharded output layer against log_softmax in float64, its gradients, its memory and its tensor-parallel sums."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from helpers.output_layer import (
    HIDDEN,
    PADDED,
    ROWS,
    VOCAB,
    cpu_backends,
    exact_heads,
    inputs,
    legal_sets,
    naive,
    slopes_of_weighted,
    weighted,
)
from torch.utils._python_dispatch import TorchDispatchMode

from rlpt.kernels.linear_logprob import linear_logprob, vocab_parallel_logprob


@exact_heads
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_log_softmax(chunk_size, temperature, masked, exact):
    hidden, weight, labels, candidates = inputs(dtype=exact.dtype)
    legal = legal_sets(labels) if masked else None
    if masked:
        candidates = torch.stack([labels, torch.zeros_like(labels)], 1)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    theirs = [hidden.double().clone().requires_grad_(), weight.double().clone().requires_grad_()]
    table, index = legal or (None, None)
    result = linear_logprob(
        *ours, labels, vocab_start=0, vocab_size=VOCAB, temperature=temperature, legal_table=table, legal_index=index,
        chunk_size=chunk_size, candidates=candidates, backend=exact.backend,
    )  # fmt: skip
    expected = naive(*theirs, labels, candidates, temperature, legal)
    for got, want in zip((result.logprobs, result.entropy, result.candidate_logprobs), expected):
        exact.figures_close(got, want)
    weighted(result.logprobs, result.entropy, result.candidate_logprobs).backward()
    weighted(*expected).backward()
    for got, want in zip(ours, theirs):
        assert want.grad.abs().max() > 0.1
        exact.gradients_close(got.grad, want.grad)
    assert ours[1].grad[VOCAB:].abs().max() == 0, "padding columns must not learn"


def test_gradcheck():
    hidden, weight, labels, _ = inputs(rows=3)
    table, index = legal_sets(labels)

    def outputs(hidden, weight):
        result = linear_logprob(
            hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, temperature=0.8, legal_table=table,
            legal_index=index, chunk_size=2, candidates=labels[:, None],
        )  # fmt: skip
        return result.logprobs, result.entropy, result.candidate_logprobs

    assert torch.autograd.gradcheck(outputs, (hidden.requires_grad_(), weight.requires_grad_()))


@exact_heads
@pytest.mark.parametrize("used", ["logprobs", "entropy"])
def test_one_output_alone_has_its_own_gradient(used, exact):
    hidden, weight, labels, _ = inputs(dtype=exact.dtype)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().clone().requires_grad_()
    options = {"vocab_start": 0, "vocab_size": VOCAB, "backend": exact.backend}
    getattr(linear_logprob(ours, weight, labels, **options), used).sum().backward()
    naive(theirs, weight.double(), labels)[used == "entropy"].sum().backward()
    assert theirs.grad.abs().max() > 0.1
    exact.gradients_close(ours.grad, theirs.grad)


@exact_heads
@pytest.mark.parametrize("width", [VOCAB, VOCAB + 1, PADDED, PADDED + 9])
def test_a_legal_table_may_be_narrower_or_wider_than_the_padded_vocabulary(width, exact):
    hidden, weight, labels, _ = inputs(dtype=exact.dtype)
    table, index = legal_sets(labels, width)
    result = linear_logprob(
        hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, legal_table=table, legal_index=index,
        backend=exact.backend,
    )  # fmt: skip
    exact.figures_close(result.logprobs, naive(hidden.double(), weight.double(), labels, legal=(table, index))[0])


@cpu_backends
@pytest.mark.parametrize("shift", [-20.0, 20.0, -300.0])
def test_shifted_logits_change_nothing(shift, backend):
    """All logits at -20 show a padded lane that counts as logit 0 (21 nats); f32 rounding of +-300 is 3e-5."""
    hidden, weight, labels, _ = inputs(dtype=torch.float32)
    hidden, weight = torch.cat([hidden, torch.full((ROWS, 1), shift)], 1), torch.cat([weight, torch.ones(PADDED, 1)], 1)
    result = linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, backend=backend)
    expected = naive(hidden.double(), weight.double(), labels)
    torch.testing.assert_close(result.logprobs.double(), expected[0], rtol=0, atol=2e-4)
    torch.testing.assert_close(result.entropy.double(), expected[1], rtol=0, atol=2e-4)


def test_bfloat16_inputs_give_float32_sums_and_bfloat16_gradients():
    hidden, weight, labels, _ = inputs(dtype=torch.bfloat16)
    hidden.requires_grad_()
    weight.requires_grad_()
    result = linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, chunk_size=2)
    assert result.logprobs.dtype == torch.float32
    torch.testing.assert_close(
        result.logprobs.double(), naive(hidden.double(), weight.double(), labels)[0], atol=1e-5, rtol=0
    )
    result.logprobs.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


@cpu_backends
def test_no_rows_give_no_outputs_and_zero_gradients(backend):
    hidden, weight, labels, candidates = inputs(rows=0, dtype=torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    options = {"vocab_start": 0, "vocab_size": VOCAB, "candidates": candidates[:, :2], "backend": backend}
    result = linear_logprob(hidden, weight, labels, **options)
    assert result.logprobs.shape == (0,)
    assert result.candidate_logprobs.shape == (0, 2)
    (result.logprobs.sum() + result.entropy.sum()).backward()
    assert hidden.grad.shape == (0, HIDDEN)
    assert weight.grad.abs().max() == 0


@cpu_backends
def test_ids_that_can_not_be_drawn_have_no_probability(backend):
    hidden, weight, labels, _ = inputs(rows=4, dtype=torch.float32)
    labels = torch.tensor([VOCAB, -1, VOCAB - 1, 3])
    table, index = legal_sets(torch.tensor([0, 1, VOCAB - 1, 5]))
    index = torch.tensor([0, 0, 3, 4])
    result = linear_logprob(
        hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, legal_table=table, legal_index=index, backend=backend
    )
    assert torch.isneginf(result.logprobs).tolist() == [True, True, False, True]
    assert result.entropy.isfinite().all()


@cpu_backends
def test_one_legal_token_is_certain(backend):
    hidden, weight, labels, _ = inputs(rows=2, dtype=torch.float32)
    table = torch.zeros(2, PADDED, dtype=torch.bool)
    table[0] = table[1, labels[1]] = True
    result = linear_logprob(
        hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, legal_table=table, legal_index=torch.tensor([0, 1]),
        backend=backend,
    )  # fmt: skip
    assert result.logprobs[1] == 0
    assert result.entropy[1] == 0


class _LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@cpu_backends
def test_logits_exist_for_one_chunk_at_a_time(backend):
    rows, vocab, chunk = 64, 200, 4
    hidden, weight = torch.randn(rows, HIDDEN, requires_grad=True), torch.randn(vocab, HIDDEN, requires_grad=True)
    with _LargestTensor() as largest:
        options = {"vocab_start": 0, "vocab_size": vocab, "chunk_size": chunk, "backend": backend}
        result = linear_logprob(hidden, weight, torch.arange(rows), **options)
        (result.logprobs.sum() + result.entropy.sum()).backward()
    assert chunk * vocab <= largest.elements <= max(chunk * vocab, vocab * HIDDEN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"legal_index": torch.zeros(ROWS, dtype=torch.int64)}, "go together"),
        (
            {"legal_table": torch.ones(1, 3, dtype=torch.bool), "legal_index": torch.zeros(ROWS, dtype=torch.int64)},
            "3 columns",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    hidden, weight, labels, _ = inputs()
    with pytest.raises(ValueError, match=message):
        linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, **options)


def test_reference_equals_log_softmax():
    hidden, weight, labels, candidates = inputs()
    logits = (hidden @ weight.t()).requires_grad_()
    result = vocab_parallel_logprob(logits, labels, vocab_start=0, vocab_size=VOCAB, candidates=candidates)
    for got, want in zip(
        (result.logprobs, result.entropy, result.candidate_logprobs), naive(hidden, weight, labels, candidates)
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    result.logprobs.sum().backward()
    assert logits.grad[:, VOCAB:].abs().max() == 0


# Shards of the padded vocabulary: even, uneven, one wholly of padding (ids 11 to 13), and edges on labels 3, 6 and 9.
LAYOUTS = {
    2: [(0, 7, 14), (0, 3, 14), (0, 11, 14)],
    3: [(0, 5, 10, 14), (0, 6, 9, 14), (0, 1, 2, 14), (0, 9, 12, 14)],
    4: [(0, 4, 8, 12, 14), (0, 1, 6, 11, 14)],
}


def check_layout(edges, rank, group, one_pass, exact):
    hidden, full, labels, candidates = inputs(dtype=exact.dtype)
    begin, end = edges[rank], edges[rank + 1]
    for legal in (None, legal_sets(labels), legal_sets(labels, VOCAB)):
        table, index = legal or (None, None)
        options = {"vocab_start": begin, "vocab_size": VOCAB, "group": group, "temperature": 0.9}
        options |= {"legal_table": table, "legal_index": index, "candidates": candidates}
        local, weight = hidden.clone().requires_grad_(), full[begin:end].clone().requires_grad_()
        seen = []
        slopes = slopes_of_weighted(ROWS, seen) if one_pass else None
        result = linear_logprob(local, weight, labels, chunk_size=3, slopes=slopes, backend=exact.backend, **options)
        assert len(seen) == (3 if one_pass else 0)
        whole, whole_weight = hidden.double().clone().requires_grad_(), full.double().clone().requires_grad_()
        expected = naive(whole, whole_weight, labels, candidates, 0.9, legal)
        plain = vocab_parallel_logprob(hidden @ full[begin:end].t(), labels, **options)
        for outputs in (result, plain):
            for got, want in zip((outputs.logprobs, outputs.entropy, outputs.candidate_logprobs), expected):
                exact.figures_close(got, want)
        weighted(result.logprobs, result.entropy, result.candidate_logprobs).backward()
        weighted(*expected).backward()
        exact.gradients_close(weight.grad, whole_weight.grad[begin:end])
        dist.all_reduce(local.grad, group=group)  # the caller's part: sum the partial gradients
        exact.gradients_close(local.grad, whole.grad)


def check_collectives(rank, group):
    """Each rank sends four numbers a row, and one more for a candidate: at once, or by chunks in one pass."""
    hidden, full, labels, candidates = inputs(dtype=torch.float32)
    sent, all_gather = [], dist.all_gather

    def counted(gathered, tensor, **options):
        sent.append(tensor.numel() * tensor.element_size())
        return all_gather(gathered, tensor, **options)

    dist.all_gather = counted
    weight = full[5 * rank : 5 * rank + 5].requires_grad_()
    options = {"vocab_start": 5 * rank, "vocab_size": VOCAB, "group": group}
    linear_logprob(hidden, weight, labels, chunk_size=1, **options)
    linear_logprob(hidden, weight, labels, chunk_size=1, candidates=candidates, **options)
    linear_logprob(hidden, weight, labels, chunk_size=4, slopes=slopes_of_weighted(ROWS), **options)
    dist.all_gather = all_gather
    assert sent == [16 * ROWS, 24 * ROWS, 16 * 4, 16 * 3], sent


def tensor_parallel_rank(rank, path, exact):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=4)
    groups = {size: dist.new_group(list(range(size))) for size in LAYOUTS}
    for size, layouts in LAYOUTS.items():
        for edges in layouts:
            if rank < size:
                check_layout(edges, rank, groups[size], False, exact)
                check_layout(edges, rank, groups[size], True, exact)
    if rank < 3:
        check_collectives(rank, groups[3])
    hidden, weight, labels, _ = inputs(rows=0)
    nothing = linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, group=groups[4])
    assert nothing.logprobs.shape == (0,)
    dist.destroy_process_group()


@exact_heads
def test_shards_of_two_to_four_ranks_equal_the_whole(tmp_path, exact):
    multiprocessing.spawn(tensor_parallel_rank, args=(str(tmp_path / "store"), exact), nprocs=4)
