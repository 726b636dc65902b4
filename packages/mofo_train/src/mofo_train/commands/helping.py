"""More processes of the same command that share its stages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


def options(given: Mapping[str, object], overrides: Sequence[str]) -> list[str]:
    """Return options as a command line has them: those that have a value, and every override."""
    named = [part for option, value in given.items() if value for part in (option, str(value))]
    return [*named, *(part for override in overrides for part in ("--set", override))]


@contextmanager
def helpers(count: int, arguments: list[str], threads: int) -> Iterator[None]:
    """Let more processes work on the same stages, and stop them when this one is stopped.

    Args:
        count: How many.
        arguments: The subcommand and its options, without --jobs.
        threads: Of each.
    """
    command = [sys.executable, "-P", "-m", "mofo_train", *arguments, "--stages-only"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield
    except BaseException:
        for helper in started:
            helper.terminate()  # it saves and can be resumed
        raise
    finally:
        for helper in started:
            helper.wait()
