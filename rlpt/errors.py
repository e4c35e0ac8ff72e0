"""Errors that a user can mend: each names the key or file and the remedy, and carries the process's exit code.

Beside the codes of these errors: 85, a run that was told to stop, saved, and is to be continued. It leaves a file
`PREEMPTED` in its folder, because what starts the ranks does not always hand on their exit code.
"""

PREEMPTED_EXIT_CODE = 85
PREEMPTED_FILE = "PREEMPTED"


class UserError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """A wrong configuration or command line."""

    exit_code = 2


class DataError(UserError, ValueError):
    """A corpus, shard, manifest or tokenizer that can't be used."""

    exit_code = 3


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be written or read."""

    exit_code = 4


class TryAgainError(UserError, RuntimeError):
    """What a new start from the newest checkpoint mends: a rank that hangs or is gone, a replica that is damaged."""

    exit_code = 75


class TrainingError(UserError, RuntimeError):
    """Training that must not go on (for instance: the loss stayed non-finite); do not requeue."""

    exit_code = 78


FATAL_EXIT_CODES = tuple(error.exit_code for error in (ConfigError, DataError, CheckpointError, TrainingError))
