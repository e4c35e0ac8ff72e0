"""What every entry that runs the model stands on: device, mesh, tokenizer, policy, generator."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt import registry
from rlpt.algorithms.base import Algorithm
from rlpt.config import Config, check_vocabulary
from rlpt.data.tokenizer import RunTokenizer, load_tokenizer
from rlpt.distributed.device import Device, peers_lost, setup_device
from rlpt.distributed.mesh import Mesh, init_mesh
from rlpt.errors import TryAgainError, UserError
from rlpt.models.gpt import build_gpt
from rlpt.models.policy import Policy
from rlpt.rollout.chooser import PolicyChooser
from rlpt.rollout.generator import PolicyGenerator
from rlpt.selfplay.base import Actor
from rlpt.training.preemption import die_with_parent

VALUE = "value"  # the scalar head that says what a state is worth


@dataclass(frozen=True)
class Runtime:
    """The parts that training and evaluation share."""

    config: Config
    device: Device
    mesh: Mesh
    tokenizer: RunTokenizer
    policy: Policy
    generator: PolicyGenerator
    chooser: PolicyChooser
    heads: tuple[str, ...] = ()  # scalar heads that the model has

    @property
    def actor(self) -> Actor:
        """The policy, as forms of self-play and evaluations meet it."""
        return Actor(self.generator, self.tokenizer, self.chooser)

    def on_primary(self, work: Callable[[], Any]) -> Any:
        """Runs `work` on the primary rank; its result, or the UserError that it raised, comes to every rank."""
        outcome: Any = None
        if self.mesh.is_primary:
            try:
                outcome = work()
            except UserError as error:
                outcome = error
        outcome = self.mesh.world.gather_objects(outcome)[self.mesh.primary_rank]
        if isinstance(outcome, UserError):
            raise outcome
        return outcome


def build_runtime(config: Config) -> Runtime:
    """Joins the other ranks and builds the model from `config.seed`. Raises ConfigError or DataError on all ranks."""
    tokenizer = load_tokenizer(config.tokenizer)
    padded = check_vocabulary(config, tokenizer.vocab_size)
    heads = required_heads(config)
    device = setup_device(config.device)
    mesh = init_mesh(config, device)
    policy = Policy(build_gpt(config, padded, mesh, device, heads), mesh, device, tokenizer.vocab_size)
    chooser = PolicyChooser(policy, VALUE if VALUE in heads else "")
    return Runtime(config, device, mesh, tokenizer, policy, PolicyGenerator(policy), chooser, heads)


def create_algorithms(config: Config) -> dict[str, Algorithm]:
    """The algorithms by objective. Raises ConfigError naming the key."""
    return {
        name: registry.create("algorithm", objective.algorithm, f"objectives.{name}.algorithm")
        for name, objective in config.objectives.items()
    }


def required_heads(config: Config) -> tuple[str, ...]:
    """Scalar heads that some algorithm trains, sorted."""
    return tuple(sorted({algorithm.head for algorithm in create_algorithms(config).values()} - {""}))


def run_entry(main: Callable[[list[str]], None]) -> None:
    """Runs an entry on this rank: a UserError is one line and its exit code on every rank, and no rank hangs.

    The process ends at once after an error: peers may be in a collective that this rank will never join. It is told
    to end when its launcher is gone.
    """
    code = 0
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    try:
        main(sys.argv[1:])
    except UserError as error:
        code = error.exit_code
        rank = int(os.environ.get("RANK", 0))
        if os.environ.get("RLPT_DEBUG") == "1":
            traceback.print_exc()
        elif rank == 0:
            print(f"error: {error}", file=sys.stderr)
        else:
            time.sleep(1.0)  # where all ranks fail alike, rank 0 has spoken and the launcher ends the others by now
            print(f"error on rank {rank}: {error}", file=sys.stderr)
    except Exception as error:
        code = TryAgainError.exit_code if peers_lost(error) else 1
        traceback.print_exc()
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
