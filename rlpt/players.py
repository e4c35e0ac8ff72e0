"""Players of games by name: a run's newest checkpoint, or a scripted bot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlpt import registry
from rlpt.config import ParallelConfig, load_config
from rlpt.errors import CheckpointError, ConfigError
from rlpt.registry import suggest
from rlpt.search.options import TreeSearch
from rlpt.selfplay.match import Mover
from rlpt.selfplay.movers import BotMover, policy_mover
from rlpt.tasks.base import create_task
from rlpt.tasks.games.base import Game
from rlpt.training.checkpoint import CheckpointStore, find_latest
from rlpt.training.checkpoint_files import CheckpointMeta
from rlpt.training.checkpoint_weights import load_weights
from rlpt.training.runtime import Runtime, build_runtime
from rlpt.types import SamplingParams


def load_run(run: Path, why: str = "play") -> tuple[Runtime, int]:
    """The runtime of a run on this one rank with its newest good weights, and their step, whatever layout it was
    trained at. Raises CheckpointError where there is nothing to load."""
    config = load_config(run / "config.yaml").model_copy(update={"parallel": ParallelConfig()})
    latest = find_latest(run)
    if latest is None:
        raise CheckpointError(f"{run} has no checkpoint to {why}; train it first")
    runtime = build_runtime(config)
    tokenizer, gpt = runtime.tokenizer, runtime.policy.gpt
    meta = CheckpointMeta.of(config, tokenizer.vocab_size, tokenizer.sha256, {})
    state = CheckpointStore(run, config.checkpoint).load_state(latest, meta)
    with runtime.device.megatron():
        shards = gpt.sharded_state_dict()
    gpt.load_state_dict(load_weights(latest / "weights", {"model": shards})["model"])
    return runtime, int(state["step"])


@dataclass(frozen=True)
class NamedPlayer:
    """Somebody who can sit in a seat."""

    name: str
    mover: Mover


def find_game(name: str) -> Game:
    """The game of that name. Raises ConfigError with the near name."""
    task = create_task({"name": name}, "--game")
    if not isinstance(task, Game):
        games = [one for one in registry.names("task") if issubclass(registry.lookup("task", one), Game)]
        raise ConfigError(f"--game: '{name}' is no game{suggest(name, games)}")
    return task


def find_player(name: str, search: TreeSearch | None, temperature: float) -> NamedPlayer:
    """A folder is a run, whose policy searches where `search` says how; anything else is a bot: `solver`, or with
    options `mcts:simulations=200,exploration=1`. Raises ConfigError or CheckpointError."""
    folder = Path(name)
    if (folder / "config.yaml").is_file():
        runtime, step = load_run(folder)
        return NamedPlayer(f"{name}@{step}", run_mover(runtime, search, temperature))
    if folder.exists() or "/" in name:
        raise ConfigError(f"{name}: no run's folder (no config.yaml in it)")
    bot, _, options = name.partition(":")
    pairs = dict(pair.partition("=")[::2] for pair in filter(None, options.split(",")))
    return NamedPlayer(name, BotMover(registry.create("opponent", {"name": bot, **pairs}, f"player {name}")))


def run_mover(runtime: Runtime, search: TreeSearch | None, temperature: float) -> Mover:
    """The policy of a runtime as a mover."""
    return policy_mover(runtime.actor, SamplingParams(temperature=temperature), search)


def search_options(simulations: int, leaf: str) -> TreeSearch | None:
    """What `--search N --leaf L` says. Raises ConfigError for another leaf."""
    if simulations == 0:
        return None
    return registry.build(TreeSearch, {"simulations": simulations, "leaf": leaf}, "--search")
