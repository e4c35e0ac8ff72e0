"""Estimates with intervals: pass@k, Wilson intervals for (clustered) proportions, Student-t intervals for means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, variance

Interval = tuple[float, float]


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased probability that at least one of `k` samples is right, given `num_correct` right of `num_samples`.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1, as a
    product, so that it doesn't overflow. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} is not defined for {num_correct} right of {num_samples} samples")
    if num_samples - num_correct < k:
        return 1.0
    miss = math.prod(1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1))
    return 1.0 - miss


def wilson_interval(proportion: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion seen in `trials` (may be fractional: an effective sample size).

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference". It keeps a sensible width
    at 0 and 1, where the normal interval has none.
    """
    if trials <= 0 or not 0.0 <= proportion <= 1.0:
        raise ValueError(f"no interval for proportion {proportion} in {trials} trials")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1.0 + z * z / trials
    centre = (proportion + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(proportion * (1 - proportion) / trials + z * z / (4 * trials * trials))
    low = 0.0 if proportion == 0.0 else max(0.0, centre - half)
    high = 1.0 if proportion == 1.0 else min(1.0, centre + half)
    return low, high


def clustered_wilson_interval(rates: Sequence[float], cluster_size: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of the mean of `rates`, each the success rate of `cluster_size` samples of one problem.

    Samples of one problem are alike, so they count for less than as many problems: the sample size is the effective
    one, p (1 - p) / Var(mean), kept between the number of problems and the number of samples. At p = 0 or 1, where
    the variance tells nothing, it is the number of problems. Korn and Graubard 1998, "Confidence Intervals for
    Proportions with Small Expected Number of Positive Counts Estimated from Survey Data".
    """
    proportion = fmean(rates)
    effective = float(len(rates))
    if len(rates) > 1 and 0.0 < proportion < 1.0:
        spread = variance(rates) / len(rates)
        most = float(len(rates) * cluster_size)
        effective = min(max(proportion * (1 - proportion) / spread, effective), most) if spread > 0 else most
    return wilson_interval(proportion, effective, confidence)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student-t interval of the mean of independent `values` (one a cluster, seed or document).

    A single value tells nothing about its spread: the interval is then (-inf, inf).
    """
    mean = fmean(values)
    if len(values) < 2:
        return -math.inf, math.inf
    half = student_t_quantile(0.5 + confidence / 2, len(values) - 1) * math.sqrt(variance(values) / len(values))
    return mean - half, mean + half


def student_t_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = `probability` (in [0.5, 1)) for `degrees` >= 1 degrees of freedom, by bisection."""
    if not 0.5 <= probability < 1.0 or degrees < 1:
        raise ValueError(f"no Student-t quantile for probability {probability} and {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _within(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 2 * probability - 1 else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(|T| <= t): Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = total = 0.0 if degrees == 1 else (cosine if odd else 1.0)
    for i in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (i - 1) / i
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
