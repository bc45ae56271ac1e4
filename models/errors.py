"""What can be wrong with a model or a checkpoint, as two exception types.

The message of either is one line: what is wrong, where, what to do about it. The command line
prints it as it is and exits with `exit_code`.
"""


class ModelError(ValueError):
    """The call was wrong: an unknown model, task or setting."""

    exit_code = 2


class CheckpointError(ValueError):
    """A checkpoint folder is damaged, incomplete, or does not fit the model."""

    exit_code = 1
