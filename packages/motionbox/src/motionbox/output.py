"""Files that a command writes where a user says: whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from motionbox.errors import InputError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write under; the file takes its own once the block ends, and nothing is left where it fails.

    Missing folders are made. A link stays one: the file that it leads to is replaced.

    Args:
        path: The file, replaced where it exists.

    Raises:
        InputError: It cannot be written, or there is something that is no file: a folder, a pipe, a device.
    """
    unfinished: Path | None = None
    try:
        if path.exists() and not path.is_file():
            raise OSError("there is something that is no file")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
        yield unfinished
        unfinished.replace(target)
    except OSError as error:
        reason = "what it lies below is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise InputError(f"cannot write {path}: {reason}; choose another path") from None
    finally:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                unfinished.unlink()
