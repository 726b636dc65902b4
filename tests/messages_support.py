"""What a package tells by logging, line by line, as tests see it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator


class _Lines(logging.Handler):
    def __init__(self, lines: list[str], on_line: Callable[[str], None] | None) -> None:
        super().__init__()
        self._lines, self._on_line = lines, on_line

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self._lines.append(line)
        if self._on_line is not None:
            self._on_line(line)


@contextlib.contextmanager
def messages(package: str, on_line: Callable[[str], None] | None = None) -> Iterator[list[str]]:
    """Collect a package's messages, and let a test do something when one comes."""
    lines: list[str] = []
    logger, handler = logging.getLogger(package), _Lines(lines, on_line)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
