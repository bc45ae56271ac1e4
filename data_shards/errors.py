"""What can be wrong with data or with a call, as two exception types.

The message of either is one line: what is wrong, where (file, study, key), what to do about it.
The command line prints it as it is and exits with `exit_code`.
"""


def printable(text: str) -> str:
    """A text for a person, control characters and bytes that are no letters escaped.

    Names of files may hold anything but `/` and 0.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class DataError(ValueError):
    """The data have a problem: a damaged file, an impossible study, a shard that fails a check."""

    exit_code = 1


class UsageError(ValueError):
    """The call was wrong: a path that is not there, an output folder that holds another run."""

    exit_code = 2
