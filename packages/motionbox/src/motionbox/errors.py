"""What can go wrong, in the words a user reads.

`MotionBoxError` ends a command with one line and its `exit_code`; `ClipError` ends one clip and becomes a row of the
store, never the end of a run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from enum import IntEnum, StrEnum
from pathlib import PurePath

# `Path("s3://bucket")` has lost a slash; one letter and a colon is a Windows drive
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(s3|gs|gcs|az|abfss?|wasbs?|hdfs|https?|ftp|file):/", re.IGNORECASE)


_BUCKET = re.compile(r"(s3|gs|az)://", re.IGNORECASE)
# Options whose value may be a URL, and commands with an argument that may be one: they say themselves which they take.
_TAKE_A_URL = ("--ray-address", "--store")
_WRITE_A_FILE = ("-o", "--out")
_TAKE_A_STORE = ("status", "verify", "gc", "show", "report", "export", "import-boxes", "evaluate")
_TAKE_A_DATA_ROOT = ("extract", "show", "report")


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    USAGE = 2
    FAILED_CLIPS = 3
    INTERRUPTED = 75


class MotionBoxError(Exception):
    """An error that the user can act on: says what, where and what to do, in one line."""

    exit_code: ExitCode = ExitCode.USAGE


class InputError(MotionBoxError):
    """Input data, a manifest or an argument is missing or invalid."""


def refuse_url(path: str | PurePath) -> None:
    """Refuse a URL where a path is expected.

    Raises:
        InputError: It is one.
    """
    if _URL.match(str(path)):
        raise InputError(
            f"a path must be local, got {str(path)!r}; only a store or a data root can lie in object storage "
            "(s3://bucket/..., gs://, az://): mount it or copy it here"
        )


def refuse_urls(arguments: Sequence[str]) -> None:
    """Refuse a command line with a URL where a path belongs: where neither a store nor a Ray cluster is asked for.

    Raises:
        InputError: It has one, as an argument or as an option's value.
    """
    before = ""
    takes_store = bool(arguments) and arguments[0] in _TAKE_A_STORE
    for argument in arguments:
        option, _, value = argument.partition("=")
        is_store = takes_store and before not in _WRITE_A_FILE and _BUCKET.match(argument)
        is_data_root = arguments[0] in _TAKE_A_DATA_ROOT and "--data-root" in (option, before)
        if not is_store and not is_data_root and {option, before}.isdisjoint(_TAKE_A_URL):
            refuse_url(argument)
            refuse_url(value)
        before = argument


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Have the Python processes that are started meanwhile import nothing from the working folder.

    Python, Ray and the workers of data loaders put it first on their module path, where a file beside the videos that
    bears the name of a library would be run in the library's place. `PYTHONPATH` stays as the user set it.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


class FlowError(InputError):
    """An optical flow method or backend is unknown or cannot run on this machine."""


class ConfigError(MotionBoxError):
    """A configuration key or value is invalid."""


class StoreError(MotionBoxError):
    """A store cannot be opened, written or trusted."""


class Interrupted(MotionBoxError):  # noqa: N818  (a state, not a fault)
    """The run was stopped and can be resumed with the same command."""

    exit_code = ExitCode.INTERRUPTED


class CredentialsError(Interrupted):
    """Credentials for object storage are missing, have expired or are not accepted: renewed, the command goes on."""


class Reason(StrEnum):
    """Why a clip failed, is partial or has no motion; the reason code kept in the store."""

    MISSING = "missing"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    LFS_POINTER = "lfs_pointer"
    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_FRAMES = "no_frames"
    DECODE_ERROR = "decode_error"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    EMPTY_SPAN = "empty_span"
    ONE_FRAME = "one_frame"
    STATIC = "static"
    ENCODE_ERROR = "encode_error"
    INTERNAL = "internal"


class ClipError(Exception):
    """One clip or video cannot be processed.

    Attributes:
        reason: Machine-readable code kept in the store.
        message: One line: what is wrong with which file and what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[ClipError], tuple[Reason, str]]:
        return type(self), (self.reason, self.message)
