"""Claims of an experiment: a value made of figures of its arms, and the bound that it should keep.

A figure is referred to as `ARM:dotted.path` into the arm's `summary.json`, e.g. `control:tasks.sort.pass@1.end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator

from rlpt.config_objectives import Section
from rlpt.errors import DataError
from rlpt.evaluation.statistics import mean_interval
from rlpt.registry import suggest

Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]  # arm -> seed -> summary.json
_FORMS = ("figure", "ratio", "difference", "max", "min")


class Value(Section):
    """One number of one seed, in exactly one of these forms."""

    figure: list[str] | None = Field(None, min_length=1, max_length=1, description="the figure itself")
    ratio: list[str] | None = Field(None, min_length=2, max_length=2, description="the first by the second")
    difference: list[str] | None = Field(None, min_length=2, max_length=2, description="the first less the second")
    max: list[str] | None = Field(None, min_length=1, description="the largest")
    min: list[str] | None = Field(None, min_length=1, description="the smallest")

    @model_validator(mode="after")
    def _one_form(self) -> Value:
        given = [form for form in _FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_FORMS)} (given: {', '.join(given) or 'none'})")
        for reference in self.references:
            arm, colon, path = reference.partition(":")
            if not (arm and colon and path):
                raise ValueError(f"'{reference}': a figure is written ARM:path, e.g. control:bits_per_byte.end")
        return self

    @property
    def form(self) -> str:
        """Which of the forms it is."""
        return next(form for form in _FORMS if getattr(self, form) is not None)

    @property
    def references(self) -> list[str]:
        """The figures that it is made of."""
        references: list[str] = getattr(self, self.form)
        return references

    def at_seed(self, summaries: Summaries, seed: str) -> float:
        """The value at one seed. Raises DataError for a figure that is not there, or for a ratio to 0."""
        numbers = [_number(summaries, reference, seed) for reference in self.references]
        if self.form == "ratio":
            if numbers[1] == 0:
                raise DataError(f"{self.references[1]}: is 0 at seed {seed}, so there is no ratio to it")
            return numbers[0] / numbers[1]
        if self.form == "difference":
            return numbers[0] - numbers[1]
        return min(numbers) if self.form == "min" else max(numbers)


class Bound(Section):
    """`at_most: x` or `at_least: x`."""

    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Bound:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("exactly one of at_most, at_least")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` (the point estimate) keeps it."""
        if self.at_most is not None:
            return value <= self.at_most
        assert self.at_least is not None
        return value >= self.at_least


class Claim(Section):
    """What an experiment says, and how it would show."""

    text: str = Field(min_length=1, description="the claim in words")
    value: Value
    bound: Bound


def training_figures_of(claim: Claim) -> list[str]:
    """OBJECTIVE/NAME of the training figures that a claim is made of: `arm:training.OBJECTIVE.NAME.end`."""
    paths = [reference.partition(":")[2].split(".") for reference in claim.value.references]
    return [f"{path[1]}/{'.'.join(path[2:-1])}" for path in paths if path[0] == "training"]


def judge(claim: Claim, summaries: Summaries, seeds: list[str]) -> dict[str, Any]:
    """`{"text", "value", "interval", "bound", "holds"}`: the mean over seeds and its 95 % Student-t interval.

    With one seed there is no spread to measure: the interval is then the one that the run's evaluation gives for a
    plain `figure` (pass@1), else None. `holds` compares the mean with the bound, as JSON true or false.
    """
    values = [claim.value.at_seed(summaries, seed) for seed in seeds]
    mean = fmean(values)
    interval = list(mean_interval(values)) if len(values) > 1 else _own_interval(claim.value, summaries, seeds[0])
    return {
        "text": claim.text,
        "value": mean,
        "interval": interval,
        "bound": claim.bound.model_dump(exclude_none=True),
        "holds": claim.bound.holds(mean),
    }


def _own_interval(value: Value, summaries: Summaries, seed: str) -> list[float] | None:
    if value.form != "figure":
        return None
    arm, _, path = value.references[0].partition(":")
    head, _, last = path.rpartition(".")
    beside = _look_up(summaries[arm][seed], head) if last == "end" and head else None
    interval = beside.get("interval") if isinstance(beside, Mapping) else None
    return [float(end) for end in interval] if interval is not None else None


def _look_up(summary: Mapping[str, Any], path: str) -> Any:
    node: Any = summary
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _number(summaries: Summaries, reference: str, seed: str) -> float:
    arm, _, path = reference.partition(":")
    summary = summaries[arm][seed]
    number = _look_up(summary, path)
    if isinstance(number, bool) or not isinstance(number, int | float):
        known = sorted(key for key, value in _leaves(summary, "") if value is not None)
        raise DataError(f"{reference}: no number in summary.json at seed {seed}{suggest(path, known)}")
    return float(number)


def _leaves(node: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in node.items():
        inner = isinstance(value, Mapping)
        leaves += _leaves(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return leaves
