"""The compiled decode step against the same step by torch's operators."""

import logging
import threading

import pytest
import torch
from helpers.tiny_model import VOCABULARY, lone_policy

from rlpt.kernels import compiler
from rlpt.kernels.compiled_decode import CompiledDecode, LayerTensors, can_compile, gated_panels, panels
from rlpt.models.decode import Decoder

pytestmark = pytest.mark.skipif(compiler.compiler() is None, reason="no C++ compiler on this machine")
HIDDEN, GROUPS, EACH, HEAD, FFN, ROWS = 52, 2, 3, 10, 37, 45  # nothing is a multiple of the code's widths
EPSILON = 1e-5


@pytest.fixture(scope="module")
def policy():
    with lone_policy() as policy:
        yield policy


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 3, 11, 12, 13, 40])
def test_steps_and_prompts_equal_those_by_torchs_operators(policy, rows):
    torch.manual_seed(rows)
    lengths = torch.randint(1, 20, (rows,))
    prompts, nexts = torch.randint(1, VOCABULARY, (rows, 20)), torch.randint(1, VOCABULARY, (3, rows))
    found = []
    for may_compile in (True, False):
        decoder = Decoder(policy.gpt, policy.mesh, VOCABULARY, may_compile=may_compile)
        assert (decoder.compiled is not None) == may_compile
        state, logits = decoder.prefill(prompts, lengths, capacity=24)
        seen = [logits, state.hidden]
        for at, tokens in enumerate(nexts):
            seen += [state.step(tokens, lengths + at, int(lengths.max()) + at), state.hidden]
        found.append(seen)
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@torch.no_grad()
def test_a_row_is_the_same_to_the_last_bit_whatever_stands_beside_it(policy):
    decoder = Decoder(policy.gpt, policy.mesh, VOCABULARY)
    lengths = torch.arange(1, 31)
    prompts, tokens = torch.randint(1, VOCABULARY, (30, 30)), torch.randint(1, VOCABULARY, (30,))
    state, logits = decoder.prefill(prompts, lengths, capacity=32)
    after = state.step(tokens, lengths, 30)
    for row in (0, 7, 29):
        alone, first = decoder.prefill(prompts[row : row + 1], lengths[row : row + 1], capacity=40)
        assert torch.equal(first[0], logits[row])
        assert torch.equal(alone.step(tokens[row : row + 1], lengths[row : row + 1], row + 1)[0], after[row])


def shards(ranks):
    """One layer of odd sizes and an output layer, cut for so many tensor ranks: [(layer, output, groups)]."""
    torch.manual_seed(0)
    heads, output = EACH + 2, torch.randn(2 * ROWS, HIDDEN)
    qkv = torch.randn(GROUPS, heads * HEAD, HIDDEN) / 4
    proj = torch.randn(HIDDEN, GROUPS, EACH * HEAD) / 4
    gate_up, down = torch.randn(2, 2 * FFN, HIDDEN) / 4, torch.randn(HIDDEN, 2 * FFN) / 4
    norms, found = (torch.rand(HIDDEN) + 0.5, torch.rand(HIDDEN) + 0.5), []
    for rank in range(ranks):
        group, wide = slice(rank, rank + 1) if ranks > 1 else slice(None), 2 * FFN // ranks
        mlp = slice(rank * wide, (rank + 1) * wide)
        layer = LayerTensors(
            norms[0],
            qkv[group].flatten(0, 1).contiguous(),
            proj[:, group].flatten(1).contiguous(),
            norms[1],
            gate_up[:, mlp].flatten(0, 1).contiguous(),
            down[:, mlp].contiguous(),
        )
        found.append((layer, output.chunk(ranks)[rank].contiguous(), GROUPS // ranks))
    return found, torch.ones(HIDDEN)


def run(shard, final_norm, reduce=None):
    layer, output, groups = shard
    compiled = CompiledDecode([layer, layer], final_norm, output, groups, HEAD, EPSILON, reduce)
    hidden = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    cache = torch.zeros(2, 2, 2, groups, 4, HEAD)
    slots, positions = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 1, 2])
    angles = positions[:, None].float() * torch.rand(HEAD // 2, generator=torch.Generator().manual_seed(2))
    return compiled(hidden, slots, positions, angles, cache, torch.tensor([1, 4]))


def test_tensor_ranks_together_equal_one_rank():
    """Two ranks are two threads here, which add up their parts at a barrier."""
    whole, final_norm = shards(1)
    wanted_hidden, wanted = run(whole[0], final_norm)
    meeting, parts, found = threading.Barrier(2), [None, None], [None, None]

    def rank(number, shard):
        def reduce(partial):
            parts[number] = partial.clone()
            meeting.wait(30)
            torch.add(*parts, out=partial)
            meeting.wait(30)

        found[number] = run(shard, final_norm, reduce)

    threads = [threading.Thread(target=rank, args=one) for one in enumerate(shards(2)[0])]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert torch.equal(found[0][0], found[1][0])
    assert (found[0][0] - wanted_hidden).abs().max() < 1e-5 * wanted_hidden.abs().max()
    logits = torch.cat([found[0][1], found[1][1]], -1)
    assert (logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_an_error_of_a_collective_goes_on_to_the_caller():
    def reduce(_):
        raise RuntimeError("Connection closed by peer")

    shard, final_norm = shards(2)
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        run(shard[0], final_norm, reduce)


@pytest.mark.parametrize("outputs", [1, 16, 32, 33, 100])
def test_panels_hold_the_weight(outputs):
    weight = torch.randn(outputs, 7)
    found = panels(weight)
    assert found.shape == (-(-outputs // 32), 7, 32)
    rows = found.transpose(1, 2).flatten(0, 1)
    assert torch.equal(rows[:outputs], weight)
    assert not rows[outputs:].any()


@pytest.mark.parametrize("ffn", [1, 16, 24, 64])
def test_gated_panels_hold_gates_beside_their_ups(ffn):
    weight = torch.randn(2 * ffn, 7)
    gates, ups = gated_panels(weight).permute(2, 0, 3, 1).flatten(1, 2)
    assert torch.equal(gates[:ffn], weight[:ffn])
    assert torch.equal(ups[:ffn], weight[ffn:])


def test_other_dtypes_are_not_compiled():
    assert can_compile(torch.zeros(1))
    assert not can_compile(torch.zeros(1, dtype=torch.float64))
    assert not can_compile(torch.zeros(1, dtype=torch.bfloat16))
    assert not can_compile(torch.zeros(1, device="meta"))


@pytest.fixture
def source(tmp_path, monkeypatch):
    """An empty cache and something to compile."""
    monkeypatch.setenv("RLPT_CACHE", str(tmp_path / "cache"))
    compiler.load.cache_clear()
    path = tmp_path / "seven.cpp"
    path.write_text('extern "C" int seven() { return 7; }')
    yield path
    compiler.load.cache_clear()


def test_a_library_is_compiled_once_and_found_again(source, monkeypatch):
    assert compiler.load(source).seven() == 7
    [library] = (source.parent / "cache").glob("*.so")
    compiler.load.cache_clear()
    monkeypatch.setattr(compiler, "FLAGS", [*compiler.FLAGS, "-no-such-flag"])
    assert compiler.load(source) is None  # other flags, another library
    monkeypatch.undo()
    assert library.exists()
    assert not list(library.parent.glob("*.tmp"))


def test_without_a_compiler_there_is_a_warning_with_the_remedy(source, monkeypatch, caplog):
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert compiler.load(source) is None
        assert compiler.load(source) is None
    [record] = caplog.records
    assert "install g++" in record.message


def test_what_a_compiler_says_is_passed_on(source, caplog):
    source.write_text("this is no C++")
    with caplog.at_level(logging.WARNING):
        assert compiler.load(source) is None
    assert "seven.cpp does not compile" in caplog.text
    assert "error" in caplog.text
