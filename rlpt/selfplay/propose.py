"""Propose: the policy makes problems for itself and solves them; programs of a micro-language say what is right.

Absolute Zero (Zhao et al. 2025, arXiv:2505.03335): a proposer writes a program and an input, an interpreter runs it,
and solvers are asked for the output (deduction), an input (abduction) or the program (induction). The mean success of
the solvers is what the proposer is paid by (`rewards/learnability.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.learnability import SOLVE_RATE
from rlpt.selfplay.base import ROLE, Actor, SelfPlay
from rlpt.selfplay.proposals import VALID, Note, Proposals, Triplet
from rlpt.selfplay.solve import Solve
from rlpt.tasks.base import Task, keyed_hash
from rlpt.tasks.programs.base import ProgramTask
from rlpt.template import ANSWER, END, PROMPT, RESULT, encode_marked, prompt_text
from rlpt.types import Episode, Generator, Problem, SamplingParams, Tokenizer, Trajectory

PROPOSER = "proposer"


@register("selfplay", "propose")
@dataclass(frozen=True)
class Propose(SelfPlay):
    """A problem is a slot: `group_size` proposals are made for it, which see the same references and are peers; each
    valid one is solved `attempts` times, and these attempts are peers of their own.

    Valid is a proposal of the shape asked for, within the limits of the level, whose program gives the same output each
    of `runs` times, and which neither the buffer nor an earlier proposal of the slot holds. The paper estimates the
    solve rate by probes and solves anew; here the probes are what the solver learns from. With `replay_share`, in place
    of that share of the proposals that are not valid a problem of the buffer is solved.

    The curriculum does not move by such plays: they do not say how hard a level is.
    """

    needs_luck: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("program",)  # a ProgramTask's: `check` asks for more than a kind

    group_size: int = 4  # proposals a slot
    attempts: int = 8  # of the solver at a valid proposal
    references: int = 6  # proposals of the buffer that a proposer is shown
    recent_share: float = 0.5  # of them that are among the newest
    replay_share: float = 0.0
    runs: int = 2  # of a proposal
    proposer: str = ""  # the snapshot whose weights propose, which are not trained by that; "": the present weights
    capacity: int = 16_384  # proposals that the buffer of each task keeps
    initial: str = ""  # file of an exported buffer that this one starts with

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in {"attempts": 1, "references": 1, "runs": 1, "capacity": 1}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"{key}={getattr(self, key)}: must be at least {least}")
        for key in ("recent_share", "replay_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key}={getattr(self, key)}: must be between 0 and 1")

    def play(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        actor: Actor,
        *,
        keys: Sequence[int],
        policy_step: int,
        memory: Any = None,
    ) -> list[Episode]:
        """`outcome` holds 1 or 0 for the proposer by whether the proposal was valid, `solve_rate` (1 where it was not,
        as in the paper's code), and the solvers' mean; each solver's trajectory has its own. The proposer's trajectory
        comes first, and is not there where a snapshot proposes."""
        buffer = Proposals(self.capacity) if memory is None else memory
        slots = [
            _Slot(problem, _program_task(tasks, problem), key) for problem, key in zip(problems, keys, strict=True)
        ]
        proposals = self._propose(slots, buffer, actor, policy_step)
        for proposal in proposals:
            if proposal.note.fault != VALID:
                self._replay(proposal, buffer)
        self._solve(proposals, actor, policy_step)
        return [self._episode(proposal) for proposal in proposals]

    def memory(self) -> Proposals:
        """The buffer, with what `initial` names. Raises DataError for a file that holds no buffer."""
        buffer = Proposals(self.capacity)
        if self.initial:
            buffer.import_file(Path(self.initial))
        return buffer

    def problem(self, task: Task, seed: int, level: int) -> Problem:
        """A slot, which has no answer; what the proposer is shown hangs on the buffer."""
        return Problem(task.name, seed, level, f"propose {task.name}", "", {})

    def chance(self, task: Task, problem: Problem, tokenizer: Tokenizer) -> float:
        """The solver's, at a problem of the task's own."""
        return self.solver.chance(task, problem, tokenizer)

    def check(self, task: Task, where: str) -> None:
        if not isinstance(task, ProgramTask):
            raise ConfigError(
                f"{where}: '{task.name}' is of the kind '{task.kind}', and this form of self-play plays tasks about "
                "programs: deduction, abduction, induction"
            )

    @property
    def solver(self) -> Solve:
        """How problems are solved: as `solve` does."""
        return Solve(
            group_size=self.attempts,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            legal_mask=self.legal_mask,
        )

    def _propose(self, slots: Sequence[_Slot], buffer: Proposals, actor: Actor, policy_step: int) -> list[_Proposal]:
        """All proposals, judged; those of one slot side by side."""
        tokenizer, generator = actor.tokenizer, self._proposer(actor, policy_step)
        prompts, params, noise = [], [], []
        for slot in slots:
            seeds = seed_triplets(slot.task, slot.problem.level)
            slot.seen.update(one.text for one in seeds)
            slot.references = buffer.draw(slot.mode, self.references, slot.key, self.recent_share, seeds)
            prompt = encode_marked(tokenizer, proposer_prompt(slot.task, slot.references))
            sampling = self._sampling(slot, tokenizer)
            for sample in range(self.group_size):
                prompts.append(prompt)
                params.append(sampling)
                noise.append(keyed_hash("propose", slot.key, sample) >> 1)
        completions = generator(prompts, params, noise)
        proposals = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            slot = slots[row // self.group_size]
            ended = completion.finish_reason == "stop"
            text = tokenizer.decode(completion.token_ids.tolist()[: -1 if ended else None])
            proposal = self._judge(slot, row % self.group_size, text, ended, buffer)
            if not self.proposer:
                trajectory = self.solver.trajectory(prompt, completion, slot.key, policy_step)
                trajectory.role, trajectory.well_formed = PROPOSER, float(proposal.note.fault != "shape")
                proposal.trajectories.append(trajectory)
            proposals.append(proposal)
        return proposals

    def _proposer(self, actor: Actor, policy_step: int) -> Generator:
        if not self.proposer or (policy_step == 0 and self.proposer not in actor.past):  # taken at the first step
            return actor.generator
        if self.proposer not in actor.past:
            raise ConfigError(
                f"selfplay.proposer={self.proposer}: there is no snapshot of this name at step {policy_step}; name one "
                f"of `snapshots` that is taken at step 0 (there are: {', '.join(sorted(actor.past)) or 'none'})"
            )
        return actor.past[self.proposer]

    def _sampling(self, slot: _Slot, tokenizer: Tokenizer) -> SamplingParams:
        end, level = tokenizer.mark_id(END), slot.problem.level
        legal = self.character_ids(slot.task.proposal_characters(level), slot.task, tokenizer)
        return self.params(slot.task.proposal_limit(level) + 1, (end,), {end} | legal)

    def _judge(self, slot: _Slot, sample: int, text: str, ended: bool, buffer: Proposals) -> _Proposal:
        """What a proposal is worth, by running it."""
        task, level, key = slot.task, slot.problem.level, keyed_hash("proposal", slot.key, sample) >> 1
        parents = [one.number for one in slot.references if one.number >= 0]
        note = Note(slot.mode, "shape", text, level=level, parents=parents)
        read = task.read(text) if ended else None
        if read is not None:
            program, given = read
            inputs = [given] if task.proposes_input else task.inputs(key, level)
            results = [task.outputs(program, inputs, level) for _ in range(self.runs)]
            outputs = results[0]
            fault = VALID
            if any(result != outputs for result in results):
                fault = "unstable"
            elif outputs is None:
                fault = "limits"
            elif text in slot.seen or buffer.knows(slot.mode, text):
                fault = "known"
            note = replace(note, fault=fault, program=program, inputs=inputs, outputs=outputs or [])
        slot.seen.add(text)
        proposal = _Proposal(slot, key, note, [])
        if note.fault == VALID:
            proposal.problem = task.problem_of(note.program, note.inputs, note.outputs, level, key)
        return proposal

    def _replay(self, proposal: _Proposal, buffer: Proposals) -> None:
        """Perhaps a problem of the buffer in the place of a proposal that is not valid."""
        slot, key = proposal.slot, keyed_hash("replay", proposal.key)
        if key >= self.replay_share * 2.0**64:
            return
        for one in buffer.draw(slot.mode, 1, key, self.recent_share):
            proposal.problem = slot.task.problem_of(one.program, one.inputs, one.outputs, one.level, proposal.key)
            proposal.note = replace(proposal.note, replayed=one.number)

    def _solve(self, proposals: Sequence[_Proposal], actor: Actor, policy_step: int) -> None:
        """Adds the solvers' trajectories, each with its outcome, and counts them in the notes."""
        tokenizer, solver = actor.tokenizer, self.solver
        rows: list[tuple[_Proposal, list[int]]] = []
        params, noise = [], []
        for proposal in proposals:
            if proposal.problem is None:
                continue
            prompt = encode_marked(tokenizer, prompt_text(proposal.problem))
            sampling = solver.sampling(proposal.slot.task, proposal.problem.level, tokenizer)
            for attempt in range(self.attempts):
                rows.append((proposal, prompt))
                params.append(sampling)
                noise.append(keyed_hash("solve", proposal.key, attempt) >> 1)
        completions = solver.complete([prompt for _, prompt in rows], params, noise, actor.generator)
        for (proposal, prompt), completion in zip(rows, completions, strict=True):
            task, problem = proposal.slot.task, proposal.problem
            assert problem is not None
            trajectory = solver.trajectory(prompt, completion, proposal.key, policy_step)
            _, trajectory.outcome = solver.judged(task, problem, completion, trajectory, tokenizer)
            solved = proposal.note.solved + (trajectory.outcome == 1.0)
            proposal.note = replace(proposal.note, attempts=proposal.note.attempts + 1, solved=solved)
            proposal.trajectories.append(trajectory)

    def _episode(self, proposal: _Proposal) -> Episode:
        note = proposal.note
        is_valid = note.fault == VALID
        outcome = {PROPOSER: float(is_valid), SOLVE_RATE: note.solved / note.attempts if is_valid else 1.0}
        if note.attempts:
            outcome[ROLE] = note.solved / note.attempts
        text = ANSWER + note.text + END
        return Episode(
            proposal.slot.problem, proposal.trajectories, outcome, text, is_measured=False, note=asdict(note)
        )


@dataclass
class _Slot:
    """A problem of the source under way."""

    problem: Problem
    task: ProgramTask
    key: int
    references: list[Triplet] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # the seed and its proposals so far

    @property
    def mode(self) -> str:
        """The buffer that it draws from and that its proposals enter."""
        return f"{self.task.name}/{self.task.language}"


@dataclass
class _Proposal:
    """A proposal under way."""

    slot: _Slot
    key: int
    note: Note
    trajectories: list[Trajectory]
    problem: Problem | None = None  # that solvers get


@lru_cache(maxsize=256)
def seed_triplets(task: ProgramTask, level: int) -> tuple[Triplet, ...]:
    """What a buffer starts with: the identity program, where the level allows it."""
    program, given = task.micro.identity
    inputs = [given] if task.proposes_input else task.inputs(0, level)
    outputs = task.outputs(program, inputs, level)
    return () if outputs is None else (Triplet(task.write(program, given), program, inputs, outputs, level),)


def proposer_prompt(task: ProgramTask, references: Sequence[Triplet]) -> str:
    """The marked text that a proposer continues: `propose deduction`, then each reference as it was proposed."""
    return f"{PROMPT}propose {task.name}{''.join(RESULT + one.text for one in references)}{ANSWER}"


def _program_task(tasks: Mapping[str, Task], problem: Problem) -> ProgramTask:
    task = tasks[problem.task]
    assert isinstance(task, ProgramTask)
    return task
