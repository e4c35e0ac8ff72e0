"""Everything that `evaluation` in the configuration asks for, on the present weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rlpt import registry
from rlpt.config import Config
from rlpt.data.corpus import held_out_batches, token_counts
from rlpt.distributed.mesh import Mesh
from rlpt.evaluation.games import evaluate_games, open_contests
from rlpt.evaluation.perplexity import text_bits_per_byte, unigram_bits_per_byte
from rlpt.evaluation.reasoning import evaluate_tasks, play_with
from rlpt.evaluation.summary import Evaluation, new_evaluation
from rlpt.models.policy import Policy
from rlpt.selfplay.base import Actor


class EvaluationSuite:
    """Held-out text and tasks, opened once. Raises ConfigError or DataError when something is not there."""

    def __init__(self, config: Config, tokenizer: Any, policy: Policy, actor: Actor, mesh: Mesh) -> None:
        options = config.evaluation
        self.options, self.tokenizer, self.policy, self.mesh = options, tokenizer, policy, mesh
        self.text = (
            held_out_batches(
                options.text,
                tokenizer,
                config.batch.sequence_length,
                config.batch.micro_batch_size,
                options.text_tokens,
                data_rank=mesh.data.rank,
                data_size=mesh.data.size,
            )
            if options.text
            else []
        )
        self.unigram: float | None = None
        if options.text and options.unigram:
            counts = token_counts(options.unigram, tokenizer)
            self.unigram = unigram_bits_per_byte(counts, self.text, tokenizer.byte_lengths, self._reduce)
        self.tasks = [
            (registry.create("task", item.task, f"evaluation.tasks.{index}.task"), item.level)
            for index, item in enumerate(options.tasks)
        ]
        self.names = [item.label or task.name for item, (task, _) in zip(options.tasks, self.tasks)]
        form = registry.create("selfplay", options.selfplay, "evaluation.selfplay")
        for index, (task, _) in enumerate(self.tasks):
            form.check(task, f"evaluation.tasks.{index}.task")
        form = replace(form, group_size=options.samples, temperature=options.temperature)
        self.actor = actor
        self.play = play_with(form, actor)
        self.contests = open_contests(options.games)

    def __call__(self, step: int, text_tokens: int) -> Evaluation:
        """One evaluation, the same on every rank; all ranks must call it."""
        bits = None
        if self.text:
            bits = text_bits_per_byte(self.policy.score, self.text, self.tokenizer.byte_lengths, self._reduce)
        data = self.mesh.data
        tasks = evaluate_tasks(
            self.tasks, self.play, self.options, data.rank, data.size, data.gather_objects, self.names
        )
        games = evaluate_games(self.contests, self.actor, data.rank, data.size, data.gather_objects)
        return new_evaluation(step, text_tokens, tasks, bits, self.unigram, games)

    def _reduce(self, values: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(values).to(self.policy.device.torch_device)
        return self.mesh.data.all_reduce(tensor).cpu().numpy()
