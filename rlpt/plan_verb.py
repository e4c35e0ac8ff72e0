"""`rlpt plan`: prints a recipe's plan, searches layouts, writes the plan as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rlpt.config import load_config
from rlpt.errors import ConfigError
from rlpt.plan import default_ranks
from rlpt.planning.hardware import find_hardware
from rlpt.planning.layout import LayoutPlan, plan_layout
from rlpt.planning.report import (
    LAYOUT_COLUMNS,
    WORK_COLUMNS,
    comment,
    layout_rows,
    run_rows,
    stage_columns,
    stage_rows,
    summary_rows,
    work_rows,
)
from rlpt.planning.sweep import sweep

Table = Callable[[str, Sequence[tuple[str, ...]], Sequence[str]], None]


def main(
    path: Path,
    overrides: Sequence[str],
    world_size: int,
    hardware_name: str,
    vocabulary: int,
    episode_tokens: int,
    search: bool,
    json_file: Path | None,
    print_table: Table,
) -> bool:
    """Prints what was asked for; whether the recipe's own layout fits. Raises ConfigError for one that there is not."""
    config, hardware = load_config(path, overrides), find_hardware(hardware_name)
    plan = plan_layout(config, world_size or default_ranks(config), hardware, vocabulary, episode_tokens)
    print_table(config.name, [*summary_rows(plan), *run_rows(plan, config.schedule.steps)], ())
    print_table("what a step does", work_rows(plan), WORK_COLUMNS)
    print_table("memory of a rank", stage_rows(plan), stage_columns(plan))
    for line in plan.advice:
        print(line)
    found: list[LayoutPlan] = []
    if search:
        found, looked_at = sweep(config, plan.world_size, hardware, vocabulary or plan.vocabulary, episode_tokens)
        print_table(f"layouts that fit, the fastest of {looked_at}", layout_rows(found), LAYOUT_COLUMNS)
        if not found:
            print("no layout fits: more ranks, a card with more memory, or a smaller model")
    print(f"rates: {hardware.source}")
    print(comment(plan))
    if json_file is not None:
        _write(json_file, {"plan": plan.as_json(), "layouts": [one.as_json() for one in found]})
    return plan.fits


def _write(path: Path, values: object) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json={path}: can't be written: {error}") from error
