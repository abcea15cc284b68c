"""What a verb ends with: an exit code, and where it failed a sentence with its remedy."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, for programs."""

    OK = 0
    NO = 1
    """The answer is no: it doesn't fit, it doesn't serve, it was refused."""
    USAGE = 2
    """The command line, or a file that it names, can't be read."""
    UNREACHABLE = 3
    """There is no kubectl, or no cluster behind it."""
    FORBIDDEN = 4
    """The cluster doesn't let this user do it."""
    NOT_FOUND = 5
    """What was named isn't there."""
    UNKNOWN = 6
    """Whether it fits isn't known before the model's header is read."""
    INTERRUPTED = 130
    """By Ctrl-C, as shells have it."""


class CommandError(Exception):
    """What is wrong and where, what to do about it, and the exit code that tells it to programs."""

    def __init__(self, message: str, remedy: str, code: Exit = Exit.NO) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code
