"""What can't be translated, and where."""


class TemplateRefused(ValueError):
    """The template uses something of Go's language that has no counterpart, or is none.

    Attributes
    ----------
    line
        Of the template, from 1 on.
    why
        A sentence without its full stop.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why
