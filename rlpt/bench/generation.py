"""What `rlpt bench decode` and `rollout` share: random weights here and in transformers, paired runs, and limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.bench.limits import copy_rate, matmul_rate
from rlpt.bench.paired import print_table, ratios, run_paired, summarize
from rlpt.config import Config, parse_config
from rlpt.distributed.device import Device, setup_device
from rlpt.distributed.mesh import init_mesh
from rlpt.models.gpt import build_gpt
from rlpt.models.hf import llama_config, llama_weights
from rlpt.models.policy import Policy
from rlpt.rollout.packing import RowShape, pack
from rlpt.types import Trajectory

OURS = "rlpt"
_PAD, _SEED = 0, 1
_PACKED = 4096  # positions of a packed row
Contender = Callable[[], float]  # runs once; seconds


@dataclass(frozen=True)
class Shape:
    """Of the model that is measured."""

    num_layers: int = 4
    hidden_size: int = 256
    num_attention_heads: int = 4
    ffn_hidden_size: int = 1024
    vocab_size: int = 512
    sequence_length: int = 256

    @property
    def parameters(self) -> int:
        """All of them; the embedding is the output layer."""
        return self.weights + (2 * self.num_layers + 1) * self.hidden_size

    @property
    def weights(self) -> int:
        """That every new token meets: those of the layers and of the output layer."""
        layer = 4 * self.hidden_size**2 + 3 * self.hidden_size * self.ffn_hidden_size
        return self.num_layers * layer + self.hidden_size * self.vocab_size

    def describe(self) -> str:
        """Its size in words."""
        return f"{self.parameters / 1e6:.1f} M parameters ({self.num_layers} x {self.hidden_size})"

    def cache_elements(self, context: float) -> float:
        """Of the keys and values that a new token reads."""
        return 2 * self.num_layers * self.hidden_size * context

    def flops(self, context: float) -> float:
        """Multiplications and additions of one new token that attends to `context` tokens, head included."""
        return 2 * self.weights + 4 * self.num_layers * self.hidden_size * context


def model_config(shape: Shape, device_kind: str, threads: int, tensor: int = 1) -> Config:
    """A run's configuration with a model of this shape, split over `tensor` ranks. `device_kind`: "cpu" (float32),
    "gpu" (bfloat16) or "auto"."""
    return parse_config(
        {
            "tokenizer": "none",
            "device": {"kind": device_kind, "threads": threads},
            "parallel": {"tensor": tensor},
            "model": {
                "num_layers": shape.num_layers,
                "hidden_size": shape.hidden_size,
                "num_attention_heads": shape.num_attention_heads,
                "num_query_groups": shape.num_attention_heads,
                "ffn_hidden_size": shape.ffn_hidden_size,
            },
            "batch": {"sequence_length": shape.sequence_length, "micro_batch_size": 1},
            "objectives": {
                "text": {"source": {"name": "corpus"}, "algorithm": {"name": "next_token"}, "microbatches": 1}
            },
            "schedule": {"steps": 1},
        }
    )


def build_policy(config: Config, vocabulary: int, device: Device) -> Policy:
    """Random weights on a mesh of the ranks that there are."""
    mesh = init_mesh(config, device)
    return Policy(build_gpt(config, config.model.padded_vocabulary(vocabulary), mesh, device), mesh, device, vocabulary)


class Models:
    """One set of random weights as a policy and as transformers' Llama."""

    def __init__(self, shape: Shape, device_kind: str, threads: int) -> None:
        """`device_kind`: "cpu" (float32), "gpu" (bfloat16) or "auto"; `threads` 0: one a core."""
        self.config = config = model_config(shape, device_kind, threads)
        self.shape, self.device = shape, setup_device(config.device)
        self.policy = build_policy(config, shape.vocab_size, self.device)
        self.llama = self._llama(llama_config(config, shape.vocab_size, _PAD, _PAD + 1, self.device.dtype))

    def _llama(self, options: dict[str, Any]) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        options = {key: value for key, value in options.items() if key not in ("architectures", "model_type")}
        llama: Any = LlamaForCausalLM(LlamaConfig(**options))
        llama = llama.to(self.device.torch_device, self.device.dtype).eval()
        missing, unexpected = llama.load_state_dict(llama_weights(self.policy.gpt, self.shape.vocab_size), strict=False)
        strange = {*unexpected, *missing} - {"lm_head.weight"}  # tied to the embedding
        assert not strange, strange
        llama.tie_weights()
        return llama

    def generate(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], cache: str | None, compiled: bool = True
    ) -> np.ndarray:
        """transformers' `generate`: one sample a prompt at temperature 1, prompts aligned right.

        Row i is finished after `lengths[i]` tokens and runs on until all rows are. `cache` is its
        `cache_implementation`; with a static one it compiles its forward on a GPU unless `compiled` is false. Returns
        ids [rows, longest].
        """
        from transformers import StoppingCriteriaList

        width = max(map(len, prompts))
        ids = torch.tensor([[_PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = self.device.torch_device
        limits = torch.tensor(lengths, device=device) + width

        def is_done(seen: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            return seen.shape[1] >= limits

        with torch.inference_mode():
            found = self.llama.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max(lengths),
                eos_token_id=None,
                pad_token_id=_PAD,
                cache_implementation=cache,
                disable_compile=not compiled,
                stopping_criteria=StoppingCriteriaList([is_done]),
            )
        drawn: np.ndarray = found[:, width:].cpu().numpy()
        assert drawn.shape == (len(prompts), max(lengths)), "transformers stopped somewhere else"
        return drawn

    def largest_difference(self, prompts: Sequence[Sequence[int]], completions: Sequence[Any]) -> float:
        """Between our log-probs of drawn tokens and transformers' of the same tokens, over all of them."""
        worst = 0.0
        for prompt, completion in zip(prompts, completions, strict=True):
            text = torch.tensor([[*prompt, *completion.token_ids.tolist()]], device=self.device.torch_device)
            with torch.inference_mode():
                rows = self.llama(text).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1).cpu()
            theirs = rows.gather(1, torch.from_numpy(completion.token_ids)[:, None]).squeeze(1).numpy()
            worst = max(worst, float(np.abs(theirs - completion.logprobs).max()))
        return worst

    def trainer_difference(self, prompts: Sequence[Sequence[int]], completions: Sequence[Any]) -> float:
        """Mean of the absolute differences between the sampler's log-probs and those that training would compute."""
        found, device = [], self.device.torch_device
        for prompt, completion in zip(prompts, completions, strict=True):
            text = torch.tensor([[*prompt, *completion.token_ids.tolist()]], device=device)
            tokens, labels = text[:, :-1].contiguous(), text[:, 1:].contiguous()
            positions = torch.arange(tokens.shape[1], device=device)[None]
            batch = Batch("text", tokens, labels, positions, positions >= len(prompt) - 1, torch.zeros_like(tokens))
            scored = self.policy.score(batch).logprobs[batch.loss_mask].cpu().numpy()
            found.append(np.abs(scored - completion.logprobs).mean())
        return float(np.mean(found))

    def packed_difference(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Any], peers: Sequence[int]
    ) -> dict[str, float]:
        """The same of groups (`peers` are equal in one) packed as an update packs them, samples behind one copy of
        their prompt: "score" without gradients, "update" by the forward that an update's gradient comes from."""
        played = [
            trajectory(prompt, completion, group)
            for prompt, completion, group in zip(prompts, completions, peers, strict=True)
        ]
        capacity = max(_PACKED, *(len(one.token_ids) for one in played))
        rows = -(-sum(len(one.token_ids) for one in played) // capacity)
        apart: dict[str, list[np.ndarray]] = {"score": [], "update": []}
        for packed in pack(played, "play", rows, RowShape(capacity, self.shape.vocab_size, _PAD)):
            batch = packed.to(self.device.torch_device)
            found = {
                "score": self.policy.score(batch),
                "update": self.policy.scores(self.policy.forward(batch), batch),
            }
            assert batch.behavior_logprobs is not None
            for name, scores in found.items():
                off = (scores.logprobs - batch.behavior_logprobs)[batch.loss_mask].detach()
                apart[name].append(off.abs().double().cpu().numpy())
        return {name: float(np.concatenate(values).mean()) for name, values in apart.items()}


def trajectory(prompt: Sequence[int], completion: Any, peers: int) -> Trajectory:
    """What a sampler said to a prompt as a policy's view of an episode."""
    ids = np.concatenate([np.asarray(prompt, np.int64), completion.token_ids])
    logprobs = np.concatenate([np.zeros(len(prompt), np.float32), completion.logprobs])
    return Trajectory("player", peers, ids, np.arange(len(ids)) >= len(prompt), logprobs)


@dataclass(frozen=True)
class Limits:
    """Measured rates of the machine."""

    flops: float  # a second, of matrix products in the weights' dtype
    bytes: float  # a second, of copies

    @classmethod
    def of(cls, models: Models) -> Limits:
        """For the device and dtype of these models."""
        return cls(matmul_rate(models.device.torch_device, models.device.dtype), copy_rate(models.device.torch_device))


def timed(work: Callable[[], Any]) -> Contender:
    """Seconds of one run. What is run must end with its result on the host."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return once


def compare(contenders: Mapping[str, Contender], pairs: int, tokens: int, least: float) -> dict[str, Any]:
    """Paired runs after one warm-up of each. `tokens` are the useful ones of a run, `least` the seconds that no way
    goes below -> figures by contender; `speedup` is how many times as long a contender took as ours."""
    for once in contenders.values():
        once()
    seconds = run_paired(contenders, pairs)
    slower = ratios(seconds, OURS)
    return {
        name: {
            "seconds": summarize(values),
            "tokens_per_second": summarize([tokens / value for value in values]),
            "speedup": slower[name],
            "share_of_limit": summarize([least / value for value in values]),
        }
        for name, values in seconds.items()
    }


def show(title: str, figures: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """The table of `compare`'s figures."""
    rows = [
        [
            name,
            figure["tokens_per_second"].show(0),
            figure["seconds"].show(3),
            figure["speedup"].show(2),
            figure["share_of_limit"].show(3),
        ]
        for name, figure in figures.items()
    ]
    header = ["contender", "useful tokens/s", "seconds", "time / ours", "share of limit"]
    print_table(title, header, rows, notes)


def random_prompts(count: int, shortest: int, longest: int, vocab_size: int) -> list[list[int]]:
    """Prompts of lengths between two numbers, both possible; the same at each call."""
    rng = np.random.default_rng(_SEED)
    return [rng.integers(2, vocab_size, rng.integers(shortest, longest + 1)).tolist() for _ in range(count)]


def geometric_lengths(count: int, mean: float, longest: int) -> list[int]:
    """Lengths from 1 on with a geometric law, the longest of which is cut to and at least one equal to `longest`."""
    rng = np.random.default_rng(_SEED)
    lengths = np.minimum(rng.geometric(1 / mean, count), longest)
    lengths[lengths.argmax()] = longest
    return [int(length) for length in lengths]
