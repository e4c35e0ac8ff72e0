"""What each objective costs: tokens and floating-point operations of its rollouts, scorings and updates.

Equal tokens or equal FLOPs, rollouts included, are the axes on which recipes are compared (RLP, 2510.01265, table 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rlpt.config import Config, ModelConfig

UPDATE, FORWARD = 6.0, 2.0  # FLOPs a weight and token: forward and backward; forward alone (Kaplan et al., 2001.08361)


@dataclass(frozen=True)
class Account:
    """Sums over the run, over all ranks."""

    update_tokens: int = 0  # positions that were trained on, padding and prompts included
    loss_tokens: int = 0  # labels that carried a loss
    rollout_tokens: int = 0  # tokens that the policy sampled
    scored_tokens: int = 0  # tokens of further passes without gradients: references, heads, rewards
    flops: float = 0.0  # of all of them

    def add(self, other: Account) -> Account:
        """The sum."""
        added = asdict(other)
        return Account(**{key: value + added[key] for key, value in asdict(self).items()})


def step_account(
    config: Config,
    vocabulary: int,
    update_tokens: int,
    loss_tokens: int,
    figures: Mapping[str, float],
    passes: int = 1,
) -> Account:
    """One objective's share of one step. `figures`: its source's, of which `tokens` were sampled after `prompt_tokens`,
    and `scored_tokens` were scored (all 0 for text). `passes`: how often its rows went forward and backward (2 where a
    shadow learns from them too)."""
    body, head = weights_per_token(config.model, vocabulary)
    sampled, scored = figures["tokens"], figures["scored_tokens"]
    flops = passes * UPDATE * (body * update_tokens + head * loss_tokens)
    flops += FORWARD * (body * (sampled + figures["prompt_tokens"] + scored) + head * (sampled + scored))
    return Account(update_tokens, loss_tokens, int(sampled), int(scored), flops)


def weights_per_token(model: ModelConfig, vocabulary: int) -> tuple[int, int]:
    """Weights that each token is multiplied with: in the layers, and in the output head where a token is scored.
    Attention over the past (small beside them for rows as short as ours) is not counted."""
    width = model.hidden_size
    groups = width // model.num_attention_heads * model.num_query_groups
    layer = width * (width + 2 * groups) + width * width + 3 * width * model.ffn_hidden_size
    return model.num_layers * layer, width * vocabulary
