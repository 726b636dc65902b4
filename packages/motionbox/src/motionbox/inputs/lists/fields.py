"""One line of a list -> path, label name and numbers, read from the right, because paths and names may hold blanks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from motionbox.inputs.lists.lines import BLANKS, Token, tokenize
from motionbox.inputs.media import FRAME_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES

NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.0+)?")
"""A whole number as lists write it: `7`, `-1`, and `7.0` from programs that keep columns with gaps as floats."""

_SUFFIX = re.compile(r"\.(?:" + "|".join(s[1:] for s in (*VIDEO_SUFFIXES, *TAR_SUFFIXES)) + r")(?=[\s,;]|$)", re.I)
_ENDS_IN_NUMBER = re.compile(r"(^|[\s,;])-?[0-9]+(?:\.0+)?$")
_QUOTE_IT = "put the path in double quotes"


@dataclass(frozen=True)
class Fields:
    """What one line says.

    Attributes:
        path: As written.
        name: Name of its class, None where the line has none.
        numbers: The whole numbers at the end of the line, in their order.
    """

    path: str
    name: str | None
    numbers: tuple[int, ...]


def read_fields(text: str, separator: str, *, is_there: Callable[[str], bool], max_numbers: int | None) -> Fields:
    """Read one line.

    Args:
        text: The line.
        separator: One of `list_lines.SEPARATORS`.
        is_there: Tells whether a path is on disk: that settles where a path with blanks ends.
        max_numbers: How many numbers may stand at the end, where the format is known; None: as many as there are.

    Raises:
        ValueError: It cannot be told for certain where the path ends; says what would help.
    """
    tokens = tokenize(text, separator)
    end = _end_on_disk(text, tokens, is_there)
    if end is not None:
        rest = tokens[end:]
        count = _count_numbers(rest, max_numbers)
        head = rest[: len(rest) - count]
        path = tokens[0].text if end == 1 else text[: tokens[end - 1].stop]
        return Fields(path, _joined(text, head), _numbers(rest[len(head) :]))
    count = _count_numbers(tokens[1:], max_numbers)
    head = tokens[: len(tokens) - count]
    path, name = _split_head(text, head, separator, numbered=count > 0)
    return Fields(path, name, _numbers(tokens[len(head) :]))


def has_media_suffix(path: str) -> bool:
    """Tell whether a path ends like a video file or an archive of frames."""
    return path.lower().endswith((*VIDEO_SUFFIXES, *TAR_SUFFIXES))


def is_image(path: str) -> bool:
    """Tell whether a path ends like a single picture."""
    return path.lower().endswith(FRAME_SUFFIXES)


def _end_on_disk(text: str, tokens: list[Token], is_there: Callable[[str], bool]) -> int | None:
    """Return how many tokens the path takes, by what lies on disk; None where nothing of it does.

    Raises:
        ValueError: Two readings are there.
    """
    if tokens[0].quoted:
        return 1 if is_there(tokens[0].text) else None
    plain = [count for count in range(1, len(tokens) + 1) if not any(token.quoted for token in tokens[:count])]
    found = [count for count in plain if is_there(text[: tokens[count - 1].stop])]
    if len(found) > 1:
        short, long = (text[: tokens[count - 1].stop] for count in (found[0], found[-1]))
        raise ValueError(f"{short!r} and {long!r} are both there; {_QUOTE_IT}")
    return found[0] if found else None


def _count_numbers(tokens: list[Token], most: int | None) -> int:
    count = 0
    for token in reversed(tokens):
        if token.quoted or NUMBER.fullmatch(token.text) is None or count == most:
            break
        count += 1
    return count


def _numbers(tokens: list[Token]) -> tuple[int, ...]:
    return tuple(int(token.text.partition(".")[0]) for token in tokens)


def _joined(text: str, tokens: list[Token]) -> str | None:
    if not tokens:
        return None
    return tokens[0].text if len(tokens) == 1 else text[tokens[0].start : tokens[-1].stop]


def _split_head(text: str, head: list[Token], separator: str, *, numbered: bool) -> tuple[str, str | None]:
    """Return path and label name from what stands before the numbers."""
    whole = text[: head[-1].stop]
    ends = [match.end() for match in _SUFFIX.finditer(whole)]
    if len(head) == 1:
        if not head[0].quoted and ends and ends != [len(whole)]:
            raise ValueError(f"{whole!r} looks like a path and something else; {_QUOTE_IT}")
        return head[0].text, None
    if head[0].quoted:
        return head[0].text, head[1].text if len(head) == 2 and head[1].quoted else _checked_name(
            _joined(text, head[1:])
        )
    if head[-1].quoted and (len(head) == 2 or ends == [head[-2].stop]):
        return text[: head[-2].stop], head[-1].text
    if len(ends) > 1:
        raise ValueError(f"{whole!r} looks like more than one path; {_QUOTE_IT}")
    if ends and ends[0] == len(whole):
        may_be_label = not numbered or separator != BLANKS or NUMBER.fullmatch(head[0].text) is not None
        return _one_path(whole, may_be_label=may_be_label), None
    if ends:
        if not any(token.stop == ends[0] for token in head):
            raise ValueError(f"{whole!r} has more than one separator; {_QUOTE_IT}")
        return whole[: ends[0]], _checked_name(whole[ends[0] :].lstrip(" \t,;"))
    if separator != BLANKS and len(head) == 2:
        return head[0].text, _checked_name(head[1].text)
    raise ValueError(f"{whole!r} does not show where the path ends; {_QUOTE_IT}, or separate the fields by tabs")


def _one_path(whole: str, *, may_be_label: bool) -> str:
    """Return a path with blanks, such as that of `drinking (31).mp4 1`.

    Raises:
        ValueError: What stands first may be a label, as in `3 a.mp4` or `drinking,a.mp4`.
    """
    if may_be_label:
        raise ValueError(f"{whole!r} may be one path, or a label before a path; {_QUOTE_IT}")
    return whole


def _checked_name(name: str | None) -> str:
    """Refuse a class name that is more likely a part of a path.

    Raises:
        ValueError: It holds a slash, an extension of a video, or a number that could be the label.
    """
    text = name or ""
    if not text or "/" in text or "\\" in text or _SUFFIX.search(text) or _ENDS_IN_NUMBER.search(text):
        raise ValueError(f"{text!r} is hardly the name of a class; {_QUOTE_IT}, and names with numbers, too")
    return text
