"""Worker of the kernels' tests: a whole generator on the way that a GPU goes, in Triton's interpreter, beside torch's.

Kernels for attention, norms, gates and drawing; steps run where a GPU would replay them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from helpers.tiny_model import VOCABULARY, build, one_rank, tiny_config, wake

from rlpt.models import decode, layers
from rlpt.models.decode_graphs import StepGraphs
from rlpt.rollout.generator import PolicyGenerator
from rlpt.types import Completion, SamplingParams

TURNS = 3


def eager(graphs: Any, run: Any, live: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`StepGraphs.step` without a graph: it runs ahead all the same."""
    rows = graphs.padded(live)
    hidden, logits = run(graphs.tokens[:rows], graphs.lengths[:rows], 0)
    return hidden[:live], logits[:live]


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Inside, what decides between the ways says that tensors lie on a GPU."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(StepGraphs, "step", eager))
        stack.enter_context(patch.object(decode, "can_compile", lambda *_: False))
        for module, name in ((decode, "suits_triton"), (layers, "suits_triton"), (decode, "can_be_same")):
            stack.enter_context(patch.object(module, name, lambda *_: True))
        yield


def requests() -> tuple[list[list[int]], list[SamplingParams]]:
    """Prompts of 3 to 40 tokens; greedy and two temperatures, legal sets, stops."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(1, VOCABULARY, (3 + 4 * i,), generator=generator).tolist() for i in range(10)]
    params = [
        SamplingParams(
            max_new_tokens=2 + 3 * (i % 3),
            temperature=(1.0, 0.7, 0.0)[i % 3],
            legal_ids=tuple(range(i, VOCABULARY, 3)) if i % 4 == 0 else None,
            stop=tuple(range(0, VOCABULARY, 29)),
            seed=i % 2,
        )
        for i in range(len(prompts))
    ]
    return prompts, params


def turns(generator: Any, prompts: list[list[int]], params: list[SamplingParams]) -> list[list[Completion]]:
    """What is drawn in several calls, each of which goes on from the texts of the one before."""
    found, texts = [], prompts
    for turn in range(TURNS):
        drawn = generator(texts, params, [100 * turn + row for row in range(len(texts))])
        texts = [[*text, *one.token_ids.tolist(), 7] for text, one in zip(texts, drawn)]
        found.append(drawn)
    return found


def difference(one: list[list[Completion]], other: list[list[Completion]]) -> str:
    """ "": the same tokens, and log-probs and certainty to rounding."""
    for turn, (left, right) in enumerate(zip(one, other, strict=True)):
        for row, (a, b) in enumerate(zip(left, right, strict=True)):
            if a.token_ids.tolist() != b.token_ids.tolist():
                return f"turn {turn}, row {row}: {a.token_ids} is not {b.token_ids}"
            off = max(abs(a.logprobs - b.logprobs).max(), abs(a.certainty - b.certainty).max())
            if not off < 2e-5:
                return f"turn {turn}, row {row}: off by {off}"
    return ""


def main() -> dict[str, str]:
    prompts, params = requests()
    with one_rank():
        config = tiny_config(hidden_size=64, num_attention_heads=4, num_query_groups=2, init_std=0.3)
        _, policy = build(config)
        wake(policy, config)
        plain = turns(PolicyGenerator(policy), prompts, params)
        with on_a_gpu():
            decoder = policy.decoder()
            assert decoder.has_kernel and decoder.has_graphs and decoder.has_draw_kernel  # noqa: PT018
            ours = {
                "all slots": turns(PolicyGenerator(policy), prompts, params),
                "three slots": turns(PolicyGenerator(policy, 3), prompts, params),
            }
            with PolicyGenerator(policy).session() as session:
                ours["a session"] = turns(session, prompts, params)
    return {name: difference(found, plain) for name, found in ours.items()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(main()))
