"""The benchmarks of decoding and of rollouts, with a tiny model: the peers do the same work, and figures add up."""

import json

import numpy as np
import pytest
from helpers.tiny_model import one_rank

from rlpt.bench import decode, rollout
from rlpt.bench.generation import Models, Shape, geometric_lengths, random_prompts

TINY = Shape(num_layers=2, hidden_size=32, num_attention_heads=4, ffn_hidden_size=48, vocab_size=90, sequence_length=64)


@pytest.fixture(scope="module")
def _rank():
    with one_rank():
        yield


def test_operations_of_a_token_are_those_of_its_matrices():
    """Twice the weights that multiply, and four times the width a layer for each token attended to."""
    weights = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 90
    assert TINY.flops(0) == 2 * weights
    assert TINY.flops(10) - TINY.flops(0) == 2 * 4 * 32 * 10


@pytest.mark.usefixtures("_rank")
def test_transformers_has_the_same_weights():
    """Of what we drew from prompts of several lengths it has the same log-probs; a batch runs to its longest row."""
    from rlpt.rollout.generator import PolicyGenerator
    from rlpt.types import SamplingParams

    models = Models(TINY, "cpu", 1)
    prompts = random_prompts(5, 3, 9, TINY.vocab_size)
    completions = PolicyGenerator(models.policy)(prompts, [SamplingParams(6)] * 5, range(5))
    assert models.largest_difference(prompts, completions) < 1e-5
    for cache in (None, "static"):
        assert models.generate(prompts, [2, 6, 1, 4, 3], cache).shape == (5, 6)


@pytest.mark.usefixtures("_rank")
def test_megatron_has_the_same_weights():
    """The best tokens of its loop over a static context are ours, and so are the log-probs of what we drew."""
    from rlpt.bench.decode_megatron import MegatronDecoder
    from rlpt.rollout.generator import PolicyGenerator
    from rlpt.types import SamplingParams

    models = Models(TINY, "cpu", 1)
    megatron = MegatronDecoder(models.policy.gpt, models.config, TINY.vocab_size, models.device)
    generator, prompts = PolicyGenerator(models.policy), random_prompts(5, 6, 6, TINY.vocab_size)
    best = generator(prompts, [SamplingParams(9, temperature=0.0)] * 5, range(5))
    greedy = megatron.generate(prompts, 9, lambda logits: logits.argmax(1, keepdim=True))
    assert greedy.tolist() == [completion.token_ids.tolist() for completion in best]
    drawn = generator(prompts, [SamplingParams(9)] * 5, range(5))
    assert megatron.largest_difference(prompts, drawn) < 1e-5
    assert megatron.largest_difference(prompts[::-1], drawn) > 1e-2
    assert megatron.generate(prompts, 9).shape == (5, 9)


@pytest.mark.usefixtures("_rank")
def test_decode_writes_what_it_measured(tmp_path, capsys):
    decode.main([2, 3], 4, 5, 2, "cpu", 1, tmp_path / "decode.json", TINY)
    figures = json.loads((tmp_path / "decode.json").read_text())
    assert set(figures["batches"]) == {"2", "3"}
    assert all(figure["largest_difference_from_megatron"] < 1e-5 for figure in figures["batches"].values())
    printed = capsys.readouterr().out
    for name, figure in figures["batches"]["3"]["contenders"].items():
        assert name in printed
        assert 0 < figure["seconds"]["smallest"] <= figure["seconds"]["median"] <= figure["seconds"]["largest"]
        assert figure["tokens_per_second"]["largest"] == pytest.approx(3 * 5 / figure["seconds"]["smallest"])
        assert 0 < figure["share_of_limit"]["median"] < 1


@pytest.mark.usefixtures("_rank")
def test_rollout_counts_useful_tokens():
    figures = rollout.main(2, 3, 8, 5.0, 12, 4, 1, "cpu", 1, None, TINY)
    assert figures["useful_tokens"] == sum(geometric_lengths(6, 5.0, 12))
    assert figures["largest_difference"] < 1e-5
    assert 0 <= figures["trainer_difference"] < 1e-5
    assert 0 <= figures["trainer_difference_of_an_update"] < 1e-5


@pytest.mark.usefixtures("_rank")
def test_a_sampler_that_says_something_else_is_told_apart_on_packed_trees():
    from dataclasses import replace

    from rlpt.rollout.generator import PolicyGenerator
    from rlpt.types import SamplingParams

    models = Models(TINY, "cpu", 1)
    prompts = [prompt for prompt in random_prompts(2, 5, 5, TINY.vocab_size) for _ in range(3)]
    drawn = PolicyGenerator(models.policy)(prompts, [SamplingParams(6)] * 6, range(6))
    wrong = [replace(one, logprobs=one.logprobs + 0.25) for one in drawn]
    found = models.packed_difference(prompts, wrong, [0, 0, 0, 1, 1, 1])
    assert found["score"] == pytest.approx(0.25, abs=1e-5)
    assert found["update"] == pytest.approx(0.25, abs=1e-5)


def test_lengths_are_geometric_with_a_longest_one():
    lengths = geometric_lengths(4000, 34.0, 192)
    assert max(lengths) == 192
    assert np.mean(lengths) == pytest.approx(34, rel=0.05)
    assert geometric_lengths(3, 2.0, 50)[:] == geometric_lengths(3, 2.0, 50)
    assert max(geometric_lengths(3, 2.0, 50)) == 50
