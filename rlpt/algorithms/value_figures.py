"""How well a scalar head says what it should: figures that its losses share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rlpt.algorithms.base import masked_sum


def value_sums(values: Tensor, returns: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Sums over loss tokens, detached, of what `explained_variance` is worked out from."""
    values = values.detach()
    parts = {"value": values, "return": returns, "value_error": values - returns}
    squares = {f"{name}_squared": parts[name].square() for name in ("return", "value_error")}
    return {name: masked_sum(part, mask) for name, part in {**parts, **squares}.items()}


def explained_variance(means: Mapping[str, float]) -> dict[str, float]:
    """1 - Var(V - R) / Var(R): 1 for a head that is right, 0 for one that says a constant; left out where all R are
    equal."""
    variance = means["return_squared"] - means["return"] ** 2
    if variance <= 1e-6 * means["return_squared"]:  # f32 sums can't tell it from 0
        return {}
    residual = means["value_error_squared"] - means["value_error"] ** 2
    return {"explained_variance": 1 - residual / variance}
