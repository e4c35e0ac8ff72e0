"""The loop: schedule -> sources -> one mixed step -> figures, with evaluation, checkpoints and exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlpt.batch import Batch
from rlpt.errors import PREEMPTED_EXIT_CODE, TrainingError
from rlpt.evaluation.suite import EvaluationSuite
from rlpt.evaluation.summary import (
    add_evaluation,
    figure,
    print_evaluation,
    summarise,
    summarised_steps,
    write_evaluations,
    write_summary,
)
from rlpt.models.snapshots import SnapshotKeeper, Snapshots
from rlpt.training.accounting import Account, step_account
from rlpt.training.figures import training_figures
from rlpt.training.memory import memory_rows, settled_heap
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.overlap import Overlap, Taken
from rlpt.training.preemption import StopRequest, remove_marker, signal_name, write_marker
from rlpt.training.replicas import ReplicaCheck
from rlpt.training.resume import RunFolder
from rlpt.training.rollback import (
    Rollback,
    add_rollback,
    cannot_go_back,
    nonfinite_alert,
    rollbacks_until,
    with_cursors,
)
from rlpt.training.rows import log_episodes, step_row
from rlpt.training.runtime import Runtime
from rlpt.training.schedule import Schedule, StepPlan, update_signal
from rlpt.training.shadow import NAMES, Shadow
from rlpt.training.sources import open_streams, source_states
from rlpt.training.state import Best, TrainState
from rlpt.training.step import TrainStep
from rlpt.training.step_figures import StepResult
from rlpt.training.stopping import write_worst_rows
from rlpt.training.throughput import Throughput
from rlpt.training.tracking import ProgressPrinter, open_trackers, wandb_run_id
from rlpt.training.watchdog import Watchdog

log = logging.getLogger(__name__)
NO_ROLLOUT = {"episodes": 0.0, "tokens": 0.0, "prompt_tokens": 0.0, "scored_tokens": 0.0}  # of text


@dataclass(frozen=True)
class Due:
    """What the end of a step brings, the same on every rank."""

    stop: int  # the signal that asks the run to end; 0: none
    is_last: bool
    saves: bool = False  # the last save is long ago
    is_writing: bool = False  # a rank is still busy with the last save


class Trainer:
    """One run from its first or resumed step to its last, or to the step in which `stop` asks it to end."""

    def __init__(self, runtime: Runtime, resume: bool | None = None, stop: StopRequest | None = None) -> None:
        config = runtime.config
        self.stop = stop or StopRequest()
        self.runtime, self.config = runtime, config
        averages = {name for name, one in config.snapshots.items() if one.update == "ema"}
        self.snapshots = Snapshots(runtime.policy.gpt, moving={*averages, *NAMES})
        self.keeper = SnapshotKeeper(self.snapshots, config.snapshots)
        self.streams = open_streams(runtime, self.snapshots)
        self.suite = EvaluationSuite(config, runtime.tokenizer, runtime.policy, runtime.actor, runtime.mesh)
        model = wrap_data_parallel(config, runtime.policy.gpt, runtime.device)
        self.optimizer = Optimizer(config, model, runtime.device)
        objectives = {name: stream.algorithm for name, stream in self.streams.items()}
        self.shadow: Shadow | None = None
        if config.bilevel is not None and config.bilevel.meta:
            self.shadow = Shadow(config, self.snapshots, self.optimizer, runtime.mesh)
        self.replicas = ReplicaCheck(self.optimizer.replicated, runtime.mesh, config.parallel.check_replicas_every)
        self.train_step = TrainStep(
            runtime.policy,
            model,
            self.optimizer,
            objectives,
            {name: objective.stop_above for name, objective in config.objectives.items()},
            passes=[*([self.shadow] if self.shadow is not None else []), self.replicas],
            room=config.batch.room,
        )
        self.overlap = Overlap(config, runtime.generator, self.streams, self.train_step)
        self.schedule = Schedule(config)
        self.state = TrainState()
        self.folder = RunFolder(runtime, self.optimizer, self.snapshots)
        self.resumed_step = self._restore(resume)
        ranks, limits = (runtime.device.rank, runtime.device.world_size), config.device
        self.watchdog = Watchdog(config.directory, *ranks, limits.timeout_seconds, limits.phase_seconds)

    def _restore(self, resume: bool | None) -> int | None:
        saved = self.folder.load(resume)
        if saved is None:
            self.folder.warm_start()
            if self.shadow is not None:
                self.shadow.prepare()
            return None
        self._take_up(saved)
        return self.state.step

    def _take_up(self, saved: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's state, whose weights are loaded; past what rollbacks to it leave out."""
        self.state = TrainState.from_json(saved)
        state, known = self.state, self.runtime.on_primary(self._rollbacks)
        if len(known) > state.rollbacks:
            state.sources, state.rollbacks = with_cursors(state.sources, known[-1]), len(known)
        self.keeper.drop_others(NAMES if self.shadow is not None else ())
        for name, stream in self.streams.items():
            if name in self.state.sources:
                stream.source.load_state_dict(self.state.sources[name])
        if self.shadow is not None and self.state.shadow:
            self.shadow.load_state_dict(self.state.shadow)
        elif self.shadow is not None:  # the run has become a bilevel one: its shadow starts here
            self.shadow.prepare()

    def _rollbacks(self) -> list[Rollback]:
        return rollbacks_until(self.config.directory, self.state.step, self.state.rollbacks)

    def fit(self) -> int:
        """Trains to the last step, evaluates, and leaves `summary.json`; returns 0.

        Told to stop, it ends earlier: it saves, leaves `PREEMPTED`, and returns 85.
        """
        config, state, primary = self.config, self.state, self.runtime.mesh.is_primary
        if primary:
            remove_marker(config.directory)
        if self._due().is_last:
            if primary:
                self._close_finished()
            return 0
        if primary:
            state.wandb_id = wandb_run_id(config.directory, state.wandb_id)
        again = "evaluation" if self._evaluation_is_due() else ""
        self.tracker = open_trackers(config, config.directory, primary, self.resumed_step, state.wandb_id, again)
        self.progress = ProgressPrinter(config.schedule.steps, config.tracking.log_interval) if primary else None
        exit_code = 1
        try:
            with self.watchdog.guard(), settled_heap():
                exit_code = self._loop()
        finally:
            if self.progress is not None:
                self.progress.close()
            self.tracker.close(exit_code)
        if exit_code:
            self.runtime.mesh.barrier()  # the first rank that leaves takes the others with it
        return exit_code

    def _close_finished(self) -> None:
        """On the primary: says that there is nothing to train, and writes the summary where the run ended before it."""
        print(
            f"{self.config.directory} has finished after {self.state.step} steps; raise schedule.steps (or "
            "schedule.max_seconds) or change the name"
        )
        if summarised_steps(self.config.directory) != self.state.step:
            state = self.state
            self.tracker = open_trackers(self.config, self.config.directory, True, state.step, state.wandb_id)
            self._finish()
            self.tracker.close(0)

    def evaluate(self) -> None:
        """Evaluates the present weights and writes `evaluation.json`; nothing is trained or tracked."""
        self.tracker = open_trackers(self.config, self.config.directory, is_primary=False)
        self._evaluate()

    def _loop(self) -> int:
        if self.state.step == 0:
            self._prepare()
        due = Due(0, is_last=False)
        if self._evaluation_is_due():
            self._evaluate()
            due = self._due()
        throughput = self._throughput()
        while not due.is_last and not due.stop:
            state = self.state
            plan = self.schedule.plan(state.step, state.signal)
            self.keeper.before_step(plan.step)
            self.watchdog.enter("rollout", plan.step + 1)
            taken = self._take(plan)
            batches = taken.batches
            self.watchdog.enter("step", plan.step + 1)
            result = self.train_step(batches, plan, self._compares_gradients(plan.step), taken.begun)
            if result.stopped:
                self._stop(plan, batches, result)
            self.keeper.after_step()
            self._account(plan, batches, result)
            throughput.update(state.step, state.text_tokens + state.rollout_tokens, state.episodes)
            state.seconds = throughput.seconds
            beside = {} if taken.begun is None else {"overlap": taken.beside}
            self._log(step_row(state, plan, batches, result, self.streams) | beside | throughput.metrics())
            self._tell_nonfinite(result)
            if state.skipped_steps > self.config.schedule.max_skipped_steps:
                self._roll_back(result)
                throughput = self._throughput()
                continue
            due = self._after_step(self._due())
        if not due.is_last:
            return self._leave(due.stop)
        self._finish()
        return 0

    def _due(self) -> Due:
        """The ranks agree: clocks differ, and a signal comes to one rank before another, or to one alone."""
        schedule, state = self.config.schedule, self.state
        is_over = schedule.max_seconds > 0 and state.seconds >= schedule.max_seconds
        every = self.config.checkpoint.every_seconds
        is_old = every > 0 and time.monotonic() - self.folder.saved_at >= every
        flags = (self.stop.signal, is_over, is_old, self.folder.store.is_writing)
        stop, over, old, writing = self.runtime.mesh.largest(*flags)
        return Due(stop, bool(over) or state.step >= schedule.steps, bool(old), bool(writing))

    def _evaluation_is_due(self) -> bool:
        """At the start, and every so many steps, unless it was done; a run that was told to stop left it for later."""
        step, interval = self.state.step, self.config.evaluation.interval
        done = any(one["step"] == step for one in self.state.evaluations)
        return not done and (step == 0 or (interval > 0 and step % interval == 0))

    def _leave(self, number: int) -> int:
        """The end of an attempt that was told to stop, and has saved what there was to save; the exit code."""
        state = self.state
        if self.runtime.mesh.is_primary:
            write_marker(self.config.directory, state.step, number)
            print(f"{signal_name(number)}: ended after step {state.step}; the same command goes on from there")
        return PREEMPTED_EXIT_CODE

    def _throughput(self) -> Throughput:
        schedule, state = self.config.schedule, self.state
        throughput = Throughput(schedule.steps, state.seconds, max_seconds=schedule.max_seconds)
        throughput.update(state.step, state.text_tokens + state.rollout_tokens, state.episodes)
        return throughput

    def _prepare(self) -> None:
        """What there is to say before the first step: memory, and what the sources expect."""
        runtime = self.runtime
        padded = self.config.model.padded_vocabulary(runtime.tokenizer.vocab_size)
        rows = memory_rows(self.config, padded, runtime.device.dtype.itemsize, runtime.mesh.data.size)
        if runtime.mesh.is_primary:
            print("memory a rank: " + ", ".join(f"{what.partition(', ')[2]} {size}" for what, size in rows))
        for name, stream in self.streams.items():
            for line in getattr(stream.source, "prepare", list)():
                if self.runtime.mesh.is_primary:
                    print(f"{name}: {line}")

    def _take(self, plan: StepPlan) -> Taken:
        return self.overlap.take(plan, may_begin=not self._compares_gradients(plan.step))

    def _compares_gradients(self, step: int) -> bool:
        interval = self.config.tracking.gradient_interval
        return interval > 0 and (step + 1) % interval == 0

    def _account(self, plan: StepPlan, batches: Mapping[str, list[Batch]], result: StepResult) -> None:
        """Moves the run's counters on; skipped steps used their data up too."""
        state = self.state
        state.step = plan.step + 1
        state.skipped_steps = state.skipped_steps + 1 if result.skipped else 0
        state.genuine_steps += result.skipped
        state.transient_steps += result.transient
        for name in batches:
            figures = NO_ROLLOUT | self.streams[name].source.metrics()
            passes = 2 if self.shadow is not None and name == self.shadow.bilevel.lower else 1
            spent = step_account(
                self.config,
                self.runtime.tokenizer.vocab_size,
                result.positions[name],
                result.tokens[name],
                figures,
                passes,
            )
            before = Account(**state.accounts[name]) if name in state.accounts else Account()
            state.accounts[name] = asdict(before.add(spent))
            if not self.streams[name].algorithm.uses_rewards:
                state.text_tokens += result.tokens[name]
            state.episodes += int(figures["episodes"])
            state.rollout_tokens += int(figures["tokens"])
            gate = self.config.objectives[name].gate
            if gate is not None and "signal" in figures:
                state.signal[name] = update_signal(state.signal.get(name), figures["signal"], gate.decay)

    def _log(self, row: dict[str, Any]) -> None:
        self.tracker.log(row)
        if self.progress is not None:
            self.progress.update(row)

    def _after_step(self, due: Due) -> Due:
        """What is due after a step; whether the run ends here. Told to stop, it saves at once and evaluates later."""
        config, state = self.config, self.state
        if state.step % config.tracking.episode_interval == 0:
            log_episodes(self.tracker, self.streams)
        if due.is_last or due.stop or not due.is_writing:
            self.folder.store.finish()
        evaluates = due.is_last or (self._evaluation_is_due() and not due.stop)
        if evaluates:
            self._evaluate()
        is_best = evaluates and state.best is not None and state.best.step == state.step
        wanted = due.saves or is_best or state.step % config.checkpoint.interval == 0
        saves = due.is_last or due.stop or (wanted and not state.skipped_steps)
        if saves:
            self._save(in_background=config.checkpoint.asynchronous and not (due.is_last or due.stop))
        if due.is_last or due.stop or not (evaluates or saves):
            return due
        due = self._due()  # they may have taken long
        if due.stop and saves:
            self.folder.store.finish()
        elif due.stop:
            self._save()
        return due

    def _stop(self, plan: StepPlan, batches: Mapping[str, list[Batch]], result: StepResult) -> None:
        """A figure is above its bound: writes the worst rows and ends the run; the weights were not touched."""
        path = write_worst_rows(self.runtime, self.config.directory, plan.step, batches)
        text = f"step {plan.step + 1}: {result.stopped}; nothing was updated, the rows furthest off are in {path}"
        self.tracker.alert("stopped", text)
        self.folder.store.finish()
        raise TrainingError(
            f"{text}; resume from the newest checkpoint with a lower optimizer.lr, less staleness, truncate or "
            "mask_sequences, or a higher bound"
        )

    def _tell_nonfinite(self, result: StepResult) -> None:
        if not (result.skipped or result.transient):
            return
        title, text = nonfinite_alert(self.state.step, result)
        self.tracker.alert(title, text)
        if self.runtime.mesh.is_primary:
            log.warning(text)

    def _roll_back(self, result: StepResult) -> None:
        """Back to the last good checkpoint, past the batches since. Raises TrainingError where that is over, too."""
        left, schedule = self.state, self.config.schedule
        self.folder.store.finish()
        cursors = {name: stream.source.cursor() for name, stream in self.streams.items()}
        saved = self.folder.load_last_good() if left.rollbacks < schedule.max_rollbacks else None
        if saved is None:
            raise TrainingError(cannot_go_back(left, schedule, result))
        rollback = Rollback(left.step, saved["step"], cursors)
        self.runtime.on_primary(lambda: add_rollback(self.config.directory, left.rollbacks, rollback))
        self._take_up(saved)
        self.state.wandb_id, self.state.seconds = left.wandb_id, left.seconds
        self.tracker.rewind(self.state.step)
        text = (
            f"step {left.step} was not finite, the {left.skipped_steps}th in a row: back to step {self.state.step}, "
            f"past the batches since ({self.state.rollbacks} of schedule.max_rollbacks={schedule.max_rollbacks})"
        )
        self.tracker.alert("rolled back", text)
        if self.runtime.mesh.is_primary:
            log.warning(text)

    def _evaluate(self) -> None:
        state = self.state
        self.watchdog.enter("evaluation", state.step)
        evaluation = self.suite(state.step, state.text_tokens)
        state.evaluations = add_evaluation(state.evaluations, evaluation)
        wanted = self.config.checkpoint.keep_best
        if wanted:
            value = figure(evaluation, wanted)
            sign = 1 if self.config.checkpoint.higher_is_better else -1
            if value is not None and (state.best is None or sign * value > sign * state.best.figure):
                state.best = Best(value, state.step)
        self.tracker.log({"step": state.step, "evaluation": evaluation})
        if self.runtime.mesh.is_primary:
            write_evaluations(self.config.directory, state.evaluations)
            print_evaluation(state.evaluations)

    def _save(self, in_background: bool = False) -> None:
        self.watchdog.enter("save", self.state.step)
        self.replicas.before_save(self.state.step)
        self.state.sources = source_states(self.streams)
        self.state.snapshots = self.snapshots.names()
        self.state.shadow = {} if self.shadow is None else self.shadow.state_dict()
        best = self.state.best
        self.folder.save(self.state.step, self.state.to_json(), None if best is None else best.step, in_background)

    def _finish(self) -> None:
        state = self.state
        summary = summarise(
            state.evaluations,
            steps=state.step,
            text_tokens=state.text_tokens,
            rollout_tokens=state.rollout_tokens,
            episodes=state.episodes,
            seconds=state.seconds,
        )
        summary["accounts"] = state.accounts
        if self.runtime.mesh.is_primary:
            names = {*self.config.objectives, "bilevel"}
            summary["training"] = training_figures(self.config.directory / "metrics.jsonl", names)
        self.tracker.summary(summary)
        if self.runtime.mesh.is_primary:
            write_summary(self.config.directory, summary)
