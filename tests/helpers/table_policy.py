"""A small exact policy: a table of next-token logits by the last two tokens. Rows are checked from the definition."""

from types import SimpleNamespace

import numpy as np
import torch

from rlpt.distributed.device import Device
from rlpt.distributed.mesh import Axis
from rlpt.rollout.sampling import draw, keyed_uniform
from rlpt.types import SamplingParams

V, STOP = 23, 4


class TableState:
    """The last two tokens of each slot."""

    def __init__(self, policy, context):
        self.policy, self.context = policy, context

    def place(self, slots, source, rows):
        self.context[slots] = source.context[rows]

    def move(self, to, origin, columns, swap):
        assert not swap, "outside sessions"
        self.context[to] = self.context[origin]

    def step(self, tokens, lengths, longest):
        self.policy.rows_stepped += len(tokens)
        self.policy.widest = max(self.policy.widest, len(tokens))
        self.context[: len(tokens)] = torch.stack([self.context[: len(tokens), 1], tokens], dim=1)
        return self.policy.table[tuple(self.context[: len(tokens)].T)]


class TablePolicy:
    """What the generator asks of a policy."""

    mesh = SimpleNamespace(tensor=Axis(0, 1, None))
    device = Device("cpu", "none", torch.float32, torch.device("cpu"), 0, 1, 0)
    vocab_size = V
    has_draw_kernel = False
    make = TableState

    def __init__(self, has_graphs=False):
        self.has_graphs = has_graphs  # then a step starts before the host has seen what was drawn
        self.table = 2 * torch.randn(V, V, V, generator=torch.Generator().manual_seed(1))
        self.rows_stepped, self.widest, self.prefilled, self.capacity = 0, 0, [], 0

    def decoder(self, is_long=False):
        return self

    def empty(self, slots, capacity):
        self.capacity = max(self.capacity, slots * capacity)
        return self.make(self, torch.zeros(slots, 2, dtype=torch.int64))

    def gather(self, logits):
        return logits

    def prefill(self, tokens, lengths, known):
        assert not known
        self.prefilled += [row[:n].tolist() for row, n in zip(tokens, lengths.tolist())]
        context = torch.stack([row[n - 2 : n] for row, n in zip(tokens, lengths.tolist())])
        return self.make(self, context), self.table[tuple(context.T)]


def by_hand(policy, prompt, params, key):
    """One row, token by token, from the definition."""
    text, logprobs = list(prompt), []
    for position in range(params.max_new_tokens):
        logits = policy.table[text[-2], text[-1]] / (params.temperature or 1.0)
        if params.legal_ids is not None:
            illegal = torch.ones(V, dtype=torch.bool)
            illegal[list(params.legal_ids)] = False
            logits = logits.masked_fill(illegal, -torch.inf)
        if params.top_k:
            logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
        row = logits.log_softmax(-1)
        noise = keyed_uniform(np.array([params.seed]), np.array([key]), np.array([position]))
        token = int(draw(row[None], torch.from_numpy(noise), torch.tensor([params.temperature == 0])))
        text.append(token)
        logprobs.append(float(row[token]))
        if token in params.stop:
            return text[len(prompt) :], logprobs, "stop"
    return text[len(prompt) :], logprobs, "length"


VARIANTS = [
    SamplingParams(max_new_tokens=12, stop=(STOP,), seed=3),
    SamplingParams(max_new_tokens=5, temperature=0.0),
    SamplingParams(max_new_tokens=12, temperature=1.8, legal_ids=(2, STOP, 7, 9), stop=(STOP, 9), seed=4),
    SamplingParams(max_new_tokens=8, top_k=3, seed=3),
    SamplingParams(max_new_tokens=1),
]
PROMPTS = [[5, 6], [1, 2, 3, 4, 5, 6, 7], [9, 9, 9]]
REQUESTS = [(prompt, params) for params in VARIANTS for prompt in PROMPTS] * 4
