"""Worker of the layout tests: every rank runs every layout that its world size allows and writes what it saw.

Started by `python -m torch.distributed.run ... layouts.py OUT`; not a test module itself.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from adapted import adapted_figures
from helpers.tiny_model import LENGTH, VOCABULARY, build, random_batch, tiny_config, wake
from helpers.tiny_training import algorithms_of, global_batches, own, run_steps
from helpers.tokenizer import CharacterTokenizer
from updates import update_figures

import rlpt.tasks  # noqa: F401 (registers)
from rlpt.batch import Batch
from rlpt.config import Config
from rlpt.distributed.device import leave, setup_device
from rlpt.models.policy import Policy
from rlpt.rollout import continuous_batching, shard_sampling
from rlpt.rollout.chooser import PolicyChooser
from rlpt.rollout.generator import PolicyGenerator
from rlpt.rollout.packing import RowShape, pack
from rlpt.rollout.sampling import draw, kept_logprobs, keyed_uniform
from rlpt.search.options import TreeSearch
from rlpt.selfplay.base import Actor
from rlpt.selfplay.converse import Converse
from rlpt.selfplay.duel import Duel
from rlpt.tasks.base import create_task, train_seed
from rlpt.template import SPECIAL_TOKENS
from rlpt.training.optimizer import wrap_data_parallel
from rlpt.training.step import TrainStep
from rlpt.types import SamplingParams, Trajectory

SHAPE = RowShape(
    sequence_length=LENGTH, vocab_size=VOCABULARY, pad_id=0, multiple=2
)  # sequence parallelism halves them
LAYOUTS = {
    1: {"single": {}},
    2: {
        "tensor": {"tensor": 2},
        "sequence": {"tensor": 2, "sequence_parallel": True},
        "pipeline": {"pipeline": 2},
        "data": {"data": 2},
        "data_replicated_optimizer": {"data": 2, "distributed_optimizer": False},
    },
}


def play(config: Config) -> dict[str, Any]:
    """Completions with every restriction of the sampler on, and the trainer's log-probs of the same tokens."""
    mesh, policy = build(config)
    wake(policy, config)
    prompts = [[5, 6, 7, 8], [5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [3]]
    legal = tuple(range(10, 70))
    variants = [
        SamplingParams(max_new_tokens=9, temperature=1.7, legal_ids=legal, stop=(12,), seed=3),
        SamplingParams(max_new_tokens=9, temperature=1.7, top_k=11, seed=3),
        SamplingParams(max_new_tokens=9, temperature=1.7, top_p=0.6, seed=3),
        SamplingParams(max_new_tokens=9, temperature=1.7, top_k=20, top_p=0.8, legal_ids=legal, seed=3),
    ]
    requests = [(prompt, params) for params in variants for prompt in prompts] * 2
    call = [prompt for prompt, _ in requests], [params for _, params in requests], list(range(len(requests)))
    completions = PolicyGenerator(policy, max_rows=20)(*call)
    slots = {str(rows): PolicyGenerator(policy, max_rows=rows)(*call) for rows in (1, 3, len(requests))}
    trajectories = []
    for (prompt, params), completion in zip(requests, completions):
        before, length = len(prompt), len(prompt) + len(completion.token_ids)
        kept = completion.kept_ids
        trajectories.append(
            Trajectory(
                role="solver",
                peers=0,
                token_ids=np.concatenate([prompt, completion.token_ids]),
                action_mask=np.arange(length) >= before,
                logprobs=np.concatenate([np.zeros(before, np.float32), completion.logprobs]),
                temperature=params.temperature,
                kept_ids=None if kept is None else (*(None for _ in prompt), *kept),
            )
        )
    largest = 0.0
    compared = 0
    for batch in pack(trajectories, "play", 2, SHAPE):
        scores = policy.score(batch)
        difference = (scores.logprobs - batch.behavior_logprobs).abs()
        largest = max(largest, float(difference.max()))
        compared += int(batch.loss_mask.sum())
    everyone = mesh.world.gather_objects([completion.token_ids.tolist() for completion in completions])
    return {
        "tokens": everyone[0],
        "ranks_agree": all(tokens == everyone[0] for tokens in everyone),
        "largest_difference": largest,
        "compared": compared,
        "lengths": sorted({len(completion.token_ids) for completion in completions}),
        "logprobs": [completion.logprobs.tolist() for completion in completions],
        "slots": {
            rows: {
                "tokens": [completion.token_ids.tolist() for completion in found],
                "logprobs": [completion.logprobs.tolist() for completion in found],
            }
            for rows, found in slots.items()
        },
    }


def drawn_from_shards(config: Config) -> dict[str, Any]:
    """Completions without gathering the logits, however narrow shards are, and by gathering them: every rank's."""
    mesh, policy = build(config)
    wake(policy, config)
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [3], [80, 2]]
    sets = [None, tuple(range(10, 70)), (3, 40, 47), (48, 60, 89), (89,)]  # at two ranks id 48 is the second's first
    variants = [
        SamplingParams(max_new_tokens=9, temperature=heat, legal_ids=ids, stop=(12,), seed=3)
        for heat in (0.0, 0.8, 1.7)
        for ids in sets
    ]
    requests = [(prompt, params) for params in variants for prompt in prompts]
    call = [prompt for prompt, _ in requests], [params for _, params in requests], list(range(len(requests)))
    seen: dict[str, Any] = {}
    for name, narrow in {"shards": 1, "gathered": VOCABULARY}.items():
        drawing = patch.object(continuous_batching, "draw_from_shards", wraps=continuous_batching.draw_from_shards)
        with patch.object(shard_sampling, "NARROW", narrow), drawing as calls:
            completions = PolicyGenerator(policy, max_rows=20)(*call)
        found = [[one.token_ids.tolist(), one.logprobs.tolist(), one.certainty.tolist()] for one in completions]
        seen[name] = dict(zip(("tokens", "logprobs", "certainty"), zip(*found)))
        seen[name]["calls"] = calls.call_count
        seen[name]["ranks_agree"] = all(other == found for other in mesh.tensor.gather_objects(found))
    return seen


class SmallTokenizer(CharacterTokenizer):
    """Marks, lower-case letters, digits and what environments answer: all within `VOCABULARY`."""

    vocab_size = VOCABULARY
    characters = "abcdefghijklmnopqrstuvwxyz0123456789?+-_ :/"

    def encode_characters(self, text: str) -> list[int]:
        return [self.first_byte + self.characters.index(character) for character in text]

    def decode(self, ids: Any) -> str:
        marks = ["", "", *SPECIAL_TOKENS]
        return "".join(marks[i] if i < self.first_byte else self.characters[i - self.first_byte] for i in ids)


def converse(config: Config) -> dict[str, Any]:
    """Episodes of several turns through a short window, and the trainer's log-probs of every turn's tokens."""
    mesh, policy = build(config)
    task, form = create_task({"name": "memory"}), Converse(group_size=6, window=18, temperature=1.3)
    problems = [task.sample(train_seed(4, index), 2) for index in range(4)]
    episodes = form.play(
        problems,
        {"memory": task},
        Actor(PolicyGenerator(policy), SmallTokenizer()),
        keys=list(range(4)),
        policy_step=0,
    )
    trajectories = [trajectory for episode in episodes for trajectory in episode.trajectories]
    largest, compared = 0.0, 0
    for batch in pack(trajectories, "play", 2, SHAPE):
        difference = (policy.score(batch).logprobs - batch.behavior_logprobs)[batch.loss_mask].abs()
        largest = max([largest, *difference.tolist()])
        compared += len(difference)
    everyone = mesh.world.gather_objects([trajectory.token_ids.tolist() for trajectory in trajectories])
    return {
        "tokens": everyone[0],
        "ranks_agree": all(tokens == everyone[0] for tokens in everyone),
        "largest_difference": largest,
        "compared": compared,
        "chosen": sum(int(trajectory.action_mask.sum()) for trajectory in trajectories),
        "slid": sum(trajectory.windows is not None for trajectory in trajectories),
        "spread": float(np.std(np.concatenate([t.logprobs[t.action_mask] for t in trajectories]))),
    }


def decode_without_cache(config: Config) -> dict[str, Any]:
    """Completions of the cached decoder, and the same by the training forward over the whole text for every token."""
    _, policy = build(config)
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [3], [80, 2]]
    first = next_logprobs(policy, prompts)
    other = next_logprobs(policy, [[prompt[0] + 1, *prompt[1:]] for prompt in prompts])
    seen: dict[str, Any] = {"first_token_tells": [float(row.abs().max()) for row in first - other]}
    for name, temperature in {"greedy": 0.0, "sampled": 1.4}.items():
        params = SamplingParams(max_new_tokens=9, temperature=temperature, seed=5)
        cached = PolicyGenerator(policy)(prompts, [params] * len(prompts), range(len(prompts)))
        texts, logprobs = [list(prompt) for prompt in prompts], [[] for _ in prompts]
        filters = torch.zeros(len(prompts), dtype=torch.int64), torch.ones(len(prompts))
        heat = torch.full((len(prompts),), temperature)
        for position in range(params.max_new_tokens):
            allowed = kept_logprobs(next_logprobs(policy, texts), heat, None, *filters)
            keys = np.arange(len(prompts), dtype=np.uint64)
            noise = keyed_uniform(np.full_like(keys, params.seed), keys, np.full(len(prompts), position))
            for row, token in enumerate(draw(allowed, torch.from_numpy(noise), heat == 0).tolist()):
                texts[row].append(token)
                logprobs[row].append(float(allowed[row, token]))
        seen[name] = {
            "cached": [completion.token_ids.tolist() for completion in cached],
            "uncached": [text[len(prompt) :] for text, prompt in zip(texts, prompts)],
            "cached_logprobs": [completion.logprobs.tolist() for completion in cached],
            "uncached_logprobs": logprobs,
        }
    seen["continued"] = seen["greedy"] | continued(policy, prompts, [4, 1, 4])
    return seen


def continued(policy: Policy, prompts: list[list[int]], lengths: list[int]) -> dict[str, Any]:
    """Greedy completions in several calls, each of which goes on from the texts of the one before."""
    drawn: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    with PolicyGenerator(policy).session() as generator:
        for length in lengths:
            texts = [[*prompt, *tokens] for prompt, tokens in zip(prompts, drawn)]
            params = [SamplingParams(max_new_tokens=length, temperature=0.0)] * len(prompts)
            for row, completion in enumerate(generator(texts, params, range(len(prompts)))):
                drawn[row] += completion.token_ids.tolist()
                logprobs[row] += completion.logprobs.tolist()
    return {"cached": drawn, "cached_logprobs": logprobs}


def next_logprobs(policy: Policy, texts: list[list[int]]) -> torch.Tensor:
    """Log-probs [B, V] of the token after each text, by `policy.score` alone."""
    last = torch.tensor([len(text) - 1 for text in texts])[:, None]
    columns = torch.arange(LENGTH)
    batch = Batch(
        objective="play",
        tokens=torch.tensor([text + [0] * (LENGTH - len(text)) for text in texts]),
        labels=torch.zeros(len(texts), LENGTH, dtype=torch.int64),
        positions=columns.expand(len(texts), -1).contiguous(),
        loss_mask=columns == last,
        segments=torch.where(columns <= last, 0, -1),
        candidates=torch.arange(VOCABULARY).expand(len(texts), LENGTH, -1),
    )
    scores = policy.score(batch).candidate_logprobs
    assert scores is not None
    return scores[torch.arange(len(texts)), last.squeeze(1)]


def gradient(
    config: Config, batches: dict[str, list[Batch]], coefficients: dict[str, float], room: int = 0
) -> torch.Tensor:
    """The finalised gradient of a mixed loss, flat, in float64, the same on every rank."""
    mesh, policy = build(config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    step = TrainStep(policy, model, None, algorithms_of(config), room=room)
    mine = own(batches, mesh)
    step.forward_backward(mine, coefficients, step.global_counts(mine))
    return torch.cat([parameter.main_grad.flatten() for _, parameter in sorted(policy.gpt.named_parameters())])


def gradients(parallel: dict[str, Any]) -> dict[str, list[float]]:
    """Gradients of the mix, of its parts, and of the same rows split and ordered in other ways."""
    config = tiny_config(parallel | {"distributed_optimizer": False}, dtype="float64")
    batches = global_batches(0, config)
    coefficients = {"text": 1.0, "play": 0.7}
    return {
        "mixed": gradient(config, batches, coefficients).tolist(),
        "text": gradient(config, {"text": batches["text"]}, {"text": 1.0}).tolist(),
        "play": gradient(config, {"play": batches["play"]}, {"play": 1.0}).tolist(),
        "reversed": gradient(config, {k: v[::-1] for k, v in reversed(batches.items())}, coefficients).tolist(),
        "split": gradient(config, {k: _split(v) for k, v in batches.items()}, coefficients).tolist(),
        "filled": gradient(config, batches, coefficients, room=6 * LENGTH).tolist(),
        "text_of_mix": gradient(config, batches, {"text": 1.0, "play": 0.0}).tolist(),
    }


def duel(config: Config) -> dict[str, Any]:
    """Games by the policy alone and with a search, all together and one by one; the trainer's log-probs of the moves
    and of the candidates, beside the sampler's and the chooser's."""
    mesh, policy = build(config, ["value"])
    wake(policy, config)
    actor = Actor(PolicyGenerator(policy), SmallTokenizer(), PolicyChooser(policy, "value"))
    game, keys = create_task({"name": "tic_tac_toe"}), list(range(5))
    search = TreeSearch(simulations=6, parallel=2, rule={"name": "puct", "noise_share": 0.25})
    form = Duel(group_size=2, search=search, search_share=0.5)
    problems = [form.problem(game, train_seed(4, key), 1) for key in keys]
    episodes = form.play(problems, {game.name: game}, actor, keys=keys, policy_step=0)
    alone = [
        one
        for problem, key in zip(problems, keys)
        for one in form.play([problem], {game.name: game}, actor, keys=[key], policy_step=0)
    ]
    trajectories = [one for episode in episodes for one in episode.trajectories if one.candidates is None]
    texts = [episode.text for episode in episodes]
    return {
        "games": texts,
        "games_alone": [episode.text for episode in alone],
        "searched": sum(one.trajectories[0].candidates is not None for one in episodes),
        "logprobs": [one.logprobs[one.action_mask].tolist() for one in trajectories],
        "logprobs_alone": [
            one.logprobs[one.action_mask].tolist()
            for episode in alone
            for one in episode.trajectories
            if one.candidates is None
        ],
        "largest_difference": max(
            float((policy.score(batch).logprobs - batch.behavior_logprobs)[batch.loss_mask].abs().max())
            for batch in pack(trajectories, "play", 1, replace(SHAPE, sequence_length=2 * LENGTH))
        ),
        "chooser": _chooser_difference(policy, actor.chooser),
        "ranks_agree": all(other == texts for other in mesh.world.gather_objects(texts)),
    }


def _chooser_difference(policy: Any, chooser: Any) -> list[float]:
    """(largest difference from the trainer's log-probs within the candidates, from the head's values, their spread)."""
    batch = replace(random_batch("text", 11, 1.0), segments=torch.zeros(3, LENGTH, dtype=torch.int64), head="value")
    texts = [row[: 5 + 4 * index].tolist() for index, row in enumerate(batch.tokens)]
    ids = [[3, 9, 40], [8], [1, 2, 3, 4, 5]]
    found, values = chooser(texts, ids)
    legal = torch.zeros(4, VOCABULARY, dtype=torch.bool)
    off, spread = [], []
    for row, (text, candidates) in enumerate(zip(texts, ids)):
        legal[row + 1, candidates] = True
        index = torch.full((3, LENGTH), row + 1)
        for column, token in enumerate(candidates):
            labels = batch.labels.clone()
            labels[row, len(text) - 1] = token
            mask = torch.zeros_like(batch.loss_mask)
            mask[row, len(text) - 1] = True
            scored = policy.score(replace(batch, labels=labels, loss_mask=mask, legal_table=legal, legal_index=index))
            off.append(abs(float(scored.logprobs[mask]) - float(found[row][column])))
            off.append(abs(float(scored.values[mask]) - float(values[row])))
            spread.append(float(scored.values[mask]))
    return [max(off), max(spread) - min(spread)]


def _split(batches: list[Batch]) -> list[Batch]:
    """The same rows in twelve microbatches of one row."""
    rows = []
    for batch in batches:
        tensors = {one.name: getattr(batch, one.name) for one in fields(batch) if one.name != "legal_table"}
        tensors = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
        for row in range(batch.tokens.shape[0]):
            rows.append(replace(batch, **{name: value[row : row + 1] for name, value in tensors.items()}))
    return rows


def score(config: Config) -> list[float]:
    """Sums of log-probs and of entropies that an evaluation sees, on every stage of a pipeline."""
    mesh, policy = build(config)
    scores = policy.score(random_batch("text", 5, 0.5))
    sums = [float(scores.logprobs.sum()), float(scores.entropy.sum())]
    assert all(other == sums for other in mesh.pipeline.gather_objects(sums)), "stages disagree"
    return sums


def main() -> None:
    out = Path(sys.argv[1])
    world = setup_device(tiny_config().device).world_size
    seen: dict[str, Any] = {}
    for name, parallel in LAYOUTS[world].items():
        seen[name] = {"steps": run_steps(tiny_config(parallel)), "score": score(tiny_config(parallel))}
        if name in ("single", "pipeline", "tensor"):
            seen[name]["untied"] = run_steps(tiny_config(parallel, tie_embeddings=False))
        if "pipeline" not in parallel:
            seen[name]["begun"] = run_steps(tiny_config(parallel), begins=True)
            seen[name]["play"] = play(tiny_config(parallel, init_std=0.3))
            seen[name]["adapted_play"] = play(tiny_config(parallel, init_std=0.3, adapter={"rank": 3}))
            seen[name]["converse"] = converse(tiny_config(parallel, init_std=0.3))
            seen[name]["duel"] = duel(tiny_config(parallel, init_std=0.3))
        if name in ("single", "tensor"):
            seen[name]["drawn"] = drawn_from_shards(tiny_config(parallel, init_std=0.3))
            seen[name]["decode"] = decode_without_cache(tiny_config(parallel, init_std=0.3))
        if name != "data_replicated_optimizer":  # a gradient has no optimizer
            seen[name]["updates"] = update_figures(parallel)
        if name in ("single", "data"):
            seen[name]["gradients"] = gradients(parallel)
    seen |= adapted_figures(LAYOUTS[world], out.parent)
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main()
