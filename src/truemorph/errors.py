"""What can go wrong, said in one line that tells the reader what to do.

The command line prints the message alone and exits with `exit_code`.
"""


class TruemorphError(Exception):
    """A failure that is not the input's fault (exit status 1)."""

    exit_code = 1


class InputError(TruemorphError, ValueError):
    """A file, column, row or setting that can't be used as it is (exit status 2)."""

    exit_code = 2


class CheckpointError(TruemorphError):
    """A model folder that can't be read or written (exit status 1)."""


class TruemorphWarning(UserWarning):
    """A result that can be computed but should not be trusted without a look."""
