"""How a message is put: on one line, with the nearest name for one that does not exist, durations as h:mm:ss."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNDECODED = re.compile("[\udc80-\udcff]")  # how Python keeps bytes of file names that are no UTF-8


def one_line(message: object) -> str:
    r"""Return a message with line ends, control characters and bytes that are no UTF-8 as escapes: `\n`, `\xff`."""
    text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], str(message))
    return _UNDECODED.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def describe_os_error(error: OSError) -> str:
    """Return one line about a file that could not be read or written."""
    where = "" if error.filename is None else f"{error.filename} "
    return f"{where}must be readable and writable, got: {error.strerror or error}"


def did_you_mean(name: str, valid: Mapping[str, str] | Collection[str], otherwise: str, *, cutoff: float = 0.5) -> str:
    """Return a remedy for a name that does not exist.

    Args:
        name: What was written.
        valid: What exists; as a mapping, what to call each.
        otherwise: What to say where nothing is like it.
        cutoff: How alike the nearest must be, 0 to 1.
    """
    near = difflib.get_close_matches(name, valid, n=1, cutoff=cutoff)
    if not near:
        return otherwise
    return f"did you mean {(valid[near[0]] if isinstance(valid, Mapping) else near[0])!r}?"


def format_seconds(seconds: float | None) -> str:
    """Return seconds as h:mm:ss or m:ss, `-` for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
