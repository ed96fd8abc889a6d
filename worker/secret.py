"""A text that must not be shown: whoever means to send it asks for it by name."""

from typing import Final

HIDDEN: Final = "**********"


class SecretStr:
    """No repr, no log line, no message and no format of this holds the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"SecretStr({HIDDEN!r})"
