"""The generator over a small exact policy: a table of next-token logits by the last two tokens."""

import pytest
from helpers.table_policy import PROMPTS, REQUESTS, TablePolicy, by_hand

from rlpt.rollout.generator import PolicyGenerator
from rlpt.types import SamplingParams


def generate(requests, keys, max_rows=512, has_graphs=False):
    policy = TablePolicy(has_graphs)
    completions = PolicyGenerator(policy, max_rows)([p for p, _ in requests], [s for _, s in requests], keys)
    return policy, completions


@pytest.mark.parametrize("has_graphs", [False, True])
@pytest.mark.parametrize("max_rows", [512, 7, 1])
def test_rows_of_any_batch_are_those_drawn_by_hand(max_rows, has_graphs):
    """Different lengths, stops and filters side by side; finished rows drop out; batches of any size."""
    keys = [1000 + 17 * i for i in range(len(REQUESTS))]
    policy, completions = generate(REQUESTS, keys, max_rows, has_graphs)
    reasons = set()
    for (prompt, params), key, completion in zip(REQUESTS, keys, completions, strict=True):
        tokens, logprobs, reason = by_hand(policy, prompt, params, key)
        assert completion.token_ids.tolist() == tokens
        assert completion.logprobs.tolist() == pytest.approx(logprobs, abs=1e-5)
        assert completion.finish_reason == reason
        reasons.add((reason, len(tokens) == params.max_new_tokens))
    assert reasons >= {("stop", False), ("length", True)}


def test_kept_sets_are_recorded_where_a_sampler_is_restricted():
    _, completions = generate(REQUESTS, range(len(REQUESTS)))
    for (_, params), completion in zip(REQUESTS, completions):
        if params.legal_ids is None and not params.top_k:
            assert completion.kept_ids is None
            continue
        assert len(completion.kept_ids) == len(completion.token_ids)
        for token, ids in zip(completion.token_ids, completion.kept_ids):
            assert token in ids
            assert ids.tolist() == sorted(params.legal_ids) if params.legal_ids else len(ids) == params.top_k


def test_greedy_takes_the_likeliest_token():
    policy, [completion] = generate([([5, 6], SamplingParams(max_new_tokens=4, temperature=0.0))], [1])
    text = [5, 6]
    for token, logprob in zip(completion.token_ids, completion.logprobs):
        row = policy.table[text[-2], text[-1]].log_softmax(-1)
        assert int(token) == int(row.argmax())
        assert logprob == pytest.approx(float(row.max()), abs=1e-6)  # at temperature 1
        text.append(int(token))


def test_the_same_key_is_the_same_row_and_another_is_not():
    params = SamplingParams(max_new_tokens=10)
    _, completions = generate([([5, 6], params)] * 3, [8, 8, 9])
    texts = [completion.token_ids.tolist() for completion in completions]
    assert texts[0] == texts[1] != texts[2]
    _, [other_seed] = generate([([5, 6], SamplingParams(max_new_tokens=10, seed=1))], [8])
    assert other_seed.token_ids.tolist() != texts[0]


def test_a_prompt_runs_once_however_many_samples_it_has():
    params = SamplingParams(max_new_tokens=2)
    policy, completions = generate([([5, 6], params)] * 6 + [([1, 2, 3], params)] * 6, range(12))
    assert policy.prefilled == [[5, 6], [1, 2, 3]]
    assert len({tuple(completion.token_ids) for completion in completions[:6]}) > 1


def test_finished_rows_cost_nothing():
    """One long row among 40 that end at once: far fewer row steps than 41 a token."""
    short, long = SamplingParams(max_new_tokens=1), SamplingParams(max_new_tokens=30)
    policy, completions = generate([([5, 6], short)] * 40 + [([5, 6], long)], range(41))
    assert len(completions[-1].token_ids) == 30
    assert policy.rows_stepped < 100


def test_no_prompts_give_no_completions():
    assert PolicyGenerator(TablePolicy())([], [], []) == []


def test_a_freed_slot_goes_to_the_next_row():
    """Twenty-one rows through four slots: the batch stays full while rows wait, and memory is that of four."""
    lengths = [3, 9, 1, 14, 2, 6, 30] * 3
    requests = [([5, 6], SamplingParams(max_new_tokens=n)) for n in lengths]
    policy, completions = generate(requests, range(len(lengths)), max_rows=4)
    assert [len(completion.token_ids) for completion in completions] == lengths
    assert policy.widest == 4
    assert policy.capacity == 4 * (2 + 30)
    assert policy.rows_stepped == sum(lengths) - len(lengths), "the first token is the prompt's, no step is idle"


@pytest.mark.parametrize("max_rows", [1, 3, 16])
def test_a_prompt_runs_once_whenever_its_samples_start(max_rows):
    """Samples of three prompts, in turns: a prompt is read when its first sample starts and kept for its last."""
    requests = [(prompt, SamplingParams(max_new_tokens=3 + at % 5)) for at, prompt in enumerate(PROMPTS * 8)]
    policy, _ = generate(requests, range(24), max_rows)
    assert policy.prefilled == PROMPTS


def test_what_is_done_beside_a_call_waits_for_its_last_rows():
    """Three slots for five rows: after steps of at most two rows, once none waits."""
    prompts, keys = [[1, 2], [3, 5], [6, 7], [8, 9], [1, 3]], [0, 1, 2, 3, 4]
    params = [SamplingParams(max_new_tokens=length) for length in (2, 3, 9, 4, 6)]
    plain = PolicyGenerator(TablePolicy(), max_rows=3)(prompts, params, keys)
    policy = TablePolicy()
    generator, seen = PolicyGenerator(policy, max_rows=3), []
    with generator.beside(lambda: seen.append(policy.rows_stepped), 0.7):
        beside = generator(prompts, params, keys)
    generator(prompts, params, keys)
    assert [one.token_ids.tolist() for one in beside] == [one.token_ids.tolist() for one in plain]
    assert len(seen) == 3  # rows of 9 and of 3 + 6 tokens end together; of 2 + 4 three tokens before them
    assert generator.meanwhile is None
