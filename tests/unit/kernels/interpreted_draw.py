"""Worker of the tests of the kernels that draw: runs every check in Triton's interpreter and writes {name: error}.

Started as `TRITON_INTERPRET=1 python interpreted_draw.py OUT`; not a test module itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from helpers.table_policy import REQUESTS, TablePolicy, TableState, by_hand

from rlpt.kernels.token_draw import draw_rows
from rlpt.rollout.generator import PolicyGenerator
from rlpt.rollout.sampling import certainty, draw, kept_logprobs, keyed_uniform

N, LIVE, PADDED, SLOTS, SETS = 40, 13, 16, 17, 3


def compare(columns: int, is_legal: bool, spread: float = 3.0, shift: float = 0.0, padding: int = 5) -> str:
    """Rows in any order whose logits stand in any order, at all temperatures, beside slots without a row."""
    rng = np.random.default_rng(columns)
    logits = torch.randn(LIVE, columns + padding) * spread + shift
    logits[:, columns // 2] = logits[:, :columns].amax(1)  # the largest twice: greedy takes the first
    row, prompt = rng.permutation(N)[:LIVE], np.arange(N) % 5
    length, source = prompt[row] + rng.integers(0, 1000, LIVE), rng.permutation(LIVE)
    seeds, keys = (rng.integers(0, 2**64, N, dtype=np.uint64) for _ in range(2))
    table = torch.rand(SETS, columns) < 0.3
    table[0], table[1, 0], table[2] = True, True, False
    table[2, columns - 1] = True  # all of the row is -inf but one
    chosen = np.arange(N) % SETS
    size = table.sum(1).numpy()[chosen] if is_legal else np.full(N, columns)
    temperature = np.ones(N, np.float32)
    temperature[::3], temperature[1::4], temperature[2::5] = 0.7, 0.0, 3.0
    words = np.stack([seeds.view(np.int64), keys.view(np.int64), prompt, chosen, size], 1)
    places = torch.full((3, SLOTS), -1)
    places[:, :LIVE] = torch.from_numpy(np.stack([row, length, source]))
    tokens, lengths, told = torch.full((PADDED,), 7), torch.full((PADDED,), 7), torch.zeros(3, SLOTS).double()
    legal = table.view(torch.uint8) if is_legal else None
    heat = torch.from_numpy(temperature)
    draw_rows(logits[:, :columns], places, torch.from_numpy(words), heat, legal, tokens, lengths, told)

    seen, heat = logits[source, :columns], heat[row]
    uniform = torch.from_numpy(keyed_uniform(seeds[row], keys[row], (length - prompt[row]).astype(np.uint64)))
    logprobs = kept_logprobs(seen, heat, table[chosen[row]] if is_legal else None, None, None)
    drawn = draw(logprobs, uniform, heat == 0, not is_legal)
    wanted = [drawn, logprobs.gather(1, drawn[:, None]).squeeze(1), certainty(logprobs, not is_legal)]
    errors = []
    if not torch.equal(tokens[:LIVE], drawn) or not torch.equal(told[0, :LIVE], drawn.double()):
        errors.append(f"tokens {tokens.tolist()}, not {drawn.tolist()}")
    off = max(float((told[at, :LIVE] - wanted[at]).abs().max()) for at in (1, 2))
    if not off <= 1e-6 * max(10.0, float(seen.abs().max())):  # of f32 log-probs
        errors.append(f"figures off by {off:.1e}")
    if lengths.tolist() != [*length, *[-1] * (PADDED - LIVE)]:
        errors.append(f"lengths {lengths.tolist()}")
    if places[:, :LIVE].tolist() != [list(row), list(length + 1), list(range(LIVE))] or (places[:, LIVE:] != -1).any():
        errors.append(f"places {places.tolist()}")
    return ", ".join(errors)


class StaticState(TableState):
    """Reads its inputs where the kernels write them, and overwrites its logits, as recorded graphs do."""

    def __init__(self, policy, context):
        super().__init__(policy, context)
        self.tokens, self.lengths = torch.zeros(len(context)).long(), torch.full((len(context),), -1)
        self.logits = torch.zeros(len(context), policy.vocab_size)

    def inputs(self, live):
        rows = min(len(self.tokens), 1 << (live - 1).bit_length())
        return self.tokens[:rows], self.lengths[:rows]

    def step_inputs(self, live):
        tokens, lengths = self.inputs(live)
        assert (lengths[live:] == -1).all()
        assert (lengths[:live] > 0).all()
        self.logits[:live] = self.step(tokens[:live], lengths[:live], 0)
        return self.logits[:live]


class KernelPolicy(TablePolicy):
    has_draw_kernel = True
    make = StaticState


def whole_calls(max_rows: int) -> str:
    """Rows that start and end at any time, drawn by kernels while the next step runs."""
    requests = [(prompt, params) for prompt, params in REQUESTS if not params.top_k]
    keys = [1000 + 17 * at for at in range(len(requests))]
    policy = KernelPolicy(has_graphs=True)
    found = PolicyGenerator(policy, max_rows)([p for p, _ in requests], [s for _, s in requests], keys)
    for (prompt, params), key, completion in zip(requests, keys, found, strict=True):
        tokens, logprobs, reason = by_hand(policy, prompt, params, key)
        if completion.token_ids.tolist() != tokens or completion.finish_reason != reason:
            return f"{completion.token_ids.tolist()} {completion.finish_reason}, not {tokens} {reason}"
        if not np.allclose(completion.logprobs, logprobs, atol=1e-5):
            return "log-probs"
    return ""


CHECKS = {
    **{
        f"{columns} columns, legal {legal}": (compare, columns, legal) for columns in (7, 300, 9001) for legal in (0, 1)
    },
    "one column": (compare, 1, False),
    "logits around -80": (compare, 300, True, 3.0, -80.0),
    "logits as far as f32 goes": (compare, 5000, False, 30.0, 0.0, 0),
    **{f"whole calls, {slots} slots": (whole_calls, slots) for slots in (512, 7)},
}


if __name__ == "__main__":
    found = {}
    for name, (check, *arguments) in CHECKS.items():
        torch.manual_seed(0)
        found[name] = check(*arguments)
    Path(sys.argv[1]).write_text(json.dumps(found))
