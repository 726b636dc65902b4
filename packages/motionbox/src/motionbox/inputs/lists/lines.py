"""Text lists: bytes -> numbered lines -> tokens, whatever the editor, the system and the separator they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from motionbox.inputs.tables import read_text

BLANKS = " "
"""Stands for any run of blanks and tabs as the separator."""

SEPARATORS = ("\t", ";", ",", BLANKS)
"""What may separate fields, the surest first: hardly a path holds a tab, many hold blanks."""

_QUOTED = r'"((?:[^"]|"")*)"'


@dataclass(frozen=True)
class Line:
    """A line that is neither empty nor a comment.

    Attributes:
        number: Where it stands in the file, from 1.
        text: Without the line's end and without blanks around it.
    """

    number: int
    text: str


@dataclass(frozen=True)
class Token:
    """One field of a line.

    Attributes:
        text: Without quotes.
        quoted: Whether it stood in double quotes.
        start: Where it starts in the line, quotes included.
        stop: The place after its end.
    """

    text: str
    quoted: bool
    start: int
    stop: int


def read_lines(path: Path) -> tuple[list[Line], list[Line]]:
    """Read a list's lines and, apart from them, its comments: lines that start with `#`.

    Raises:
        InputError: As `read_text`.
    """
    found = [Line(number, text.strip()) for number, text in enumerate(_split(read_text(path)), start=1)]
    filled = [line for line in found if line.text]
    comments = [line for line in filled if line.text.startswith("#")]
    return [line for line in filled if not line.text.startswith("#")], comments


def _split(text: str) -> list[str]:
    """Split at LF, CRLF and CR alone: `str.splitlines` would also cut names at a form feed or U+2028."""
    return re.split(r"\r\n|\n|\r", text)


def tokenize(text: str, separator: str) -> list[Token]:
    """Cut a line into fields at a separator outside of double quotes; empty fields at the end are left out.

    Raises:
        ValueError: A quote is not closed where its field ends, or a field between others is empty.
    """
    end = r"(?=[ \t]|$)" if separator == BLANKS else rf"(?=[ \t]*(?:{re.escape(separator)}|$))"
    quoted = re.compile(_QUOTED + end)
    bare = re.compile(r"[^ \t]+" if separator == BLANKS else rf"[^{re.escape(separator)}]*")
    tokens: list[Token] = []
    place = 0
    while place <= len(text):
        place += len(text[place:]) - len(text[place:].lstrip(" " if separator == "\t" else " \t"))
        if separator == BLANKS and place >= len(text):
            break
        match = quoted.match(text, place)
        if match is not None:
            tokens.append(Token(match[1].replace('""', '"'), True, match.start(), match.end()))
        elif text[place : place + 1] == '"':
            raise ValueError("a quote must be closed where its field ends")
        else:
            match = bare.match(text, place)
            word = "" if match is None else match[0].rstrip(" \t")
            tokens.append(Token(word, False, place, place + len(word)))
        stop = place if match is None else match.end()
        place = stop if separator == BLANKS else _after(text, stop, separator)
    if separator == "\t":
        tokens = [token for token in tokens if token.text]
    while tokens and not tokens[-1].text:
        tokens.pop()
    if not tokens or not all(token.text for token in tokens):
        raise ValueError("no field may be empty")
    return tokens


def _after(text: str, place: int, separator: str) -> int:
    """Return the place behind the next separator; behind the line's end where there is none."""
    found = text.find(separator, place)
    return len(text) + 1 if found < 0 else found + 1
