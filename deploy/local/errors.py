"""What can go wrong with the stack, told so that one knows what to do."""

from __future__ import annotations


class StackError(Exception):
    """The stack can't do what was asked. `str` is for the person at the terminal.

    `culprit` names the part whose log tells more, if there is one.
    """

    def __init__(self, message: str, culprit: str | None = None) -> None:
        super().__init__(message)
        self.culprit = culprit
