"""How fast training goes: tokens, episodes and seconds, as rates over the last steps and as time to the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Throughput:
    """Rates over the last `window` steps. `seconds` is what earlier attempts of the same run took, `max_seconds` what
    the run may take in all (0: no limit).

    Time comes from a clock that never jumps (seconds), so a change of the machine's date does nothing.
    """

    def __init__(
        self,
        num_steps: int,
        seconds: float = 0.0,
        window: int = 20,
        clock: Callable[[], float] = time.monotonic,
        max_seconds: float = 0.0,
    ) -> None:
        self._num_steps, self._max_seconds = num_steps, max_seconds
        self._clock = clock
        self._started = clock() - seconds
        self._marks: deque[tuple[float, int, int, int]] = deque(maxlen=window + 1)

    def update(self, step: int, tokens: int, episodes: int) -> None:
        """Notes how far the run is: steps done, and tokens and episodes so far (not since the last call).

        Call it once before the first step of an attempt, and after each step.
        """
        self._marks.append((self._clock(), step, tokens, episodes))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, all attempts together."""
        return self._clock() - self._started

    def metrics(self) -> dict[str, float]:
        """`tokens_per_second`, `episodes_per_second`, `seconds_per_step`, `eta_seconds`; empty before two marks."""
        if len(self._marks) < 2:
            return {}
        (start, first_step, first_tokens, first_episodes), (end, step, tokens, episodes) = (
            self._marks[0],
            self._marks[-1],
        )
        elapsed = end - start
        if elapsed <= 0 or step <= first_step:
            return {}
        per_step = elapsed / (step - first_step)
        left = max(self._num_steps - step, 0) * per_step
        if self._max_seconds:
            left = min(left, max(self._max_seconds - self.seconds, 0.0))
        return {
            "tokens_per_second": (tokens - first_tokens) / elapsed,
            "episodes_per_second": (episodes - first_episodes) / elapsed,
            "seconds_per_step": per_step,
            "eta_seconds": left,
        }


def duration(seconds: float) -> str:
    """Seconds as `1d 02:03:04`, `2:03:04` or `3:04`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
