"""Errors that a user can mend: each names the key or file and the remedy, and carries the process's exit code."""


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


class TrainingError(UserError, RuntimeError):
    """Training that must not go on (for instance: the loss stayed non-finite); do not requeue."""

    exit_code = 78
