"""One task of a phase, as a step of a datatrove pipeline: it takes no documents, it does units.

What a task's process prints is this project's own; datatrove's report of a pipeline without documents says nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from data_prep.config import PrepConfig
from data_prep.pipeline import Share, run
from rlpt.errors import DataError, UserError

logger.disable("datatrove")


@dataclass(frozen=True)
class Phase:
    """Picklable; a task imports this module by name."""

    name: str
    config: PrepConfig = field(repr=False)
    exits: bool  # tasks are processes of their own, whose exit status says what went wrong

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Does the share `rank` of `world_size`. What a user can mend is told in one line, in the task's log too."""
        try:
            run(self.name, self.config, workers=1, share=Share(rank, world_size))
        except (UserError, OSError) as error:
            told = error if isinstance(error, UserError) else DataError(f"{error.filename}: {error.strerror}")
            logger.error("{} {}/{}: {}", self.name, rank, world_size, told)
            if self.exits:
                sys.exit(told.exit_code)
            raise told from None
        return data
