"""A bucket as obstore speaks to it: requests, and their errors as `OSError` in one line.

Credentials and endpoint come from where the cloud's own tools take them: the environment (`AWS_ENDPOINT_URL`,
`AWS_PROFILE` is not read), instance and pod roles. Nothing of them is kept or shown. What fails is tried again for
`MOTIONBOX_CLOUD_RETRY_SECONDS` (120), a request may take `MOTIONBOX_CLOUD_TIMEOUT_SECONDS` (60).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motionbox.errors import InputError, StoreError
from motionbox.wording import one_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MANY = 32
"""Requests in flight where many objects or ranges are asked for."""

_CODE = re.compile(r"<Code>([^<]*)</Code>(?:\s*<Message>([^<]*)</Message>)?")
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_QUERY = re.compile(r"\?\S*")
# What providers call a request whose signature is no longer, or not yet, worth anything.
_SKEWED = "RequestTimeTooSkewed"
_STALE = (
    *("ExpiredToken", "TokenRefreshRequired", "InvalidToken", _SKEWED, "RequestExpired"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidClientTokenId"),
)
_DENIED = ("AccessDenied", "AuthorizationFailure")
_FORBIDDEN = "status code: 403"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
# The beginnings of the variables that say where a bucket is, and with whose rights.
_TOLD_BY = ("AWS_", "GOOGLE_", "AZURE_", "MOTIONBOX_CLOUD_")


class Refusal(Enum):
    """Why a request to a bucket failed."""

    CREDENTIALS = auto()
    DENIED = auto()
    NO_BUCKET = auto()
    MISSING = auto()
    CONDITION = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Entry:
    """An object in a listing.

    Attributes:
        key: Its key.
        st_size: Bytes.
        st_mtime: When it was written, seconds, by the bucket's clock.
        e_tag: What tells this content from another; None where the bucket has none.
    """

    key: str
    st_size: int
    st_mtime: float
    e_tag: str | None


class Client:
    """Requests to one bucket. Every method raises `OSError` with one line that names the object."""

    def __init__(self, url: str) -> None:
        """Take the bucket's URL, `s3://bucket`; nothing is asked of it yet."""
        self.url = url
        self.store = open_bucket(url)

    def read(self, key: str) -> bytes:
        """Return an object."""
        with _Errors(self.url, key):
            return bytes(self.store.get(key).bytes())

    def sha256(self, key: str) -> tuple[int, str]:
        """Return the size and the SHA-256 of an object, read piece by piece."""
        digest, size = hashlib.sha256(), 0
        with _Errors(self.url, key):
            for piece in self.store.get(key).stream():
                digest.update(piece)
                size += len(piece)
        return size, digest.hexdigest()

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, bytes) of an object, many in flight; ranges that touch are read as one."""
        if not ranges:
            return []
        starts, lengths = [offset for offset, _ in ranges], [num_bytes for _, num_bytes in ranges]
        with _Errors(self.url, key):
            return [bytes(part) for part in self.store.get_ranges(key, starts=starts, lengths=lengths)]

    def head(self, key: str) -> Entry:
        """Return what a listing says of an object."""
        with _Errors(self.url, key):
            return _entry(self.store.head(key))

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects below a prefix, in the order of their keys."""
        with _Errors(self.url, prefix):
            for page in self.store.list(f"{prefix}/" if prefix else None, chunk_size=1000):
                yield from map(_entry, page)

    def children(self, prefix: str) -> list[str]:
        """Return the keys directly below a prefix, of objects and of longer prefixes, sorted."""
        with _Errors(self.url, prefix):
            found = self.store.list_with_delimiter(prefix or None)
        return sorted([*(entry["path"] for entry in found["objects"]), *found["common_prefixes"]])

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects directly below a prefix, sorted."""
        with _Errors(self.url, prefix):
            found = self.store.list_with_delimiter(prefix or None)
        return sorted(map(_entry, found["objects"]), key=lambda entry: entry.key)

    def has_children(self, prefix: str) -> bool:
        """Return whether an object lies below a prefix."""
        return next(self.walk(prefix), None) is not None

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, in place of what has its name; a file is sent in parts where it is large."""
        with _Errors(self.url, key):
            self.store.put(key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless its name is taken; return whether it was written.

        The bucket decides: of several writers one gets the name. An answer that was lost is no answer, so this is tried
        again, and then meets its own object: content tells it, which is why it must bear an id of its writer.

        Raises:
            OSError: Also where it stays unknown whether it was written.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for last in (False, False, True):
            try:
                with _Errors(self.url, key):
                    self.store.put(key, data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return self.read(key) == data
            except OSError as error:
                if last or error.errno != errno.EIO:
                    raise
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def put_over(self, key: str, data: bytes, e_tag: str | None) -> bool:
        """Write an object in place of one content of it; return False where it has another by now."""
        from obstore.exceptions import PreconditionError

        try:
            with _Errors(self.url, key):
                self.store.put(key, data, mode={"e_tag": e_tag})
        except PreconditionError:
            return self.read(key) == data
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; what is not there is no error."""
        for begin in range(0, len(keys), 1000):
            some = list(keys[begin : begin + 1000])
            try:
                with _Errors(self.url, some[0]):
                    self.store.delete(some)
            except FileNotFoundError:  # Azure and Google stop at the first that is not there
                for key in some:
                    with contextlib.suppress(FileNotFoundError), _Errors(self.url, key):
                        self.store.delete(key)


def _entry(found: Any) -> Entry:
    return Entry(found["path"], int(found["size"]), found["last_modified"].timestamp(), found["e_tag"])


def client_of(url: str) -> Client:
    """Return this process's connection to a bucket: another one where the environment has come to say something else.

    Raises:
        StoreError: obstore is not installed, or this process was forked from one that had used it, whose threads are
            gone: every request would wait for ever.
    """
    global _used_in
    if _used_in not in (None, os.getpid()):
        raise StoreError(
            f"{url} cannot be read in a process forked from one that has used object storage; start it with the method "
            "'spawn' or 'forkserver' of multiprocessing"
        )
    _used_in = os.getpid()
    told = sorted((name, value) for name, value in os.environ.items() if name.startswith(_TOLD_BY))
    return _client_of(url, hash(tuple(told)))


_used_in: int | None = None


@lru_cache(maxsize=8)
def _client_of(url: str, _environment: int) -> Client:
    return Client(url)


def open_bucket(url: str) -> ObjectStore:
    """Return a connection to a bucket, or to a prefix of one; nothing is asked of it yet.

    Raises:
        StoreError: obstore is not installed.
        InputError: The URL, or what the environment says, is of no use.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise StoreError(f"{url} needs obstore, which is not installed: pip install 'motionbox[cloud]'") from None
    timeout = timedelta(seconds=float(os.environ.get("MOTIONBOX_CLOUD_TIMEOUT_SECONDS", "60")))
    patience = timedelta(seconds=float(os.environ.get("MOTIONBOX_CLOUD_RETRY_SECONDS", "120")))
    options: dict[str, Any] = {"timeout": timeout, "connect_timeout": timedelta(seconds=10)}
    if _may_be_plain(os.environ):
        options["allow_http"] = True
    retry: Any = {
        "max_retries": 10,
        "retry_timeout": patience,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    }
    try:
        opened: ObjectStore = from_url(url, client_options=options, retry_config=retry)  # type: ignore[call-overload]
        return opened
    except Exception as error:
        raise InputError(f"{url} cannot be opened: {_cause(error)}") from None


def _may_be_plain(variables: Mapping[str, str]) -> bool:
    """Return whether the environment asks for HTTP without TLS: an S3 endpoint that is, or a cloud's own switch."""
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or ""
    switches = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "AZURE_STORAGE_USE_EMULATOR")
    return endpoint.startswith("http://") or any(variables.get(name, "").lower() == "true" for name in switches)


class _Errors:
    """Turns what obstore raises into `OSError`; answers that a condition did not hold pass through."""

    def __init__(self, url: str, key: str) -> None:
        self._where = f"{url}/{key}" if key else url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        refusal = refusal_of(error) if isinstance(error, Exception) else None
        if error is None or refusal in (None, Refusal.CONDITION):
            return
        # A bucket that is not there is no object that is not there: nothing may go on as if it were empty.
        number = {
            Refusal.MISSING: errno.ENOENT,
            Refusal.CREDENTIALS: errno.EACCES,
            Refusal.DENIED: errno.EACCES,
            Refusal.NO_BUCKET: errno.EACCES,
        }.get(refusal, errno.EIO)
        raise OSError(number, words_of(refusal, error, self._where), self._where) from None


def refusal_of(error: Exception) -> Refusal | None:
    """Return why a request failed, from what obstore raised; None for an error that is not a bucket's."""
    from obstore import exceptions as known

    text = str(error)
    said = found[1] if (found := _CODE.search(text)) else text
    is_denied = isinstance(error, known.PermissionDeniedError) or _FORBIDDEN in text
    kinds = (
        (Refusal.CONDITION, isinstance(error, known.AlreadyExistsError | known.PreconditionError)),
        (Refusal.CREDENTIALS, isinstance(error, known.UnauthenticatedError) or any(code in said for code in _STALE)),
        (Refusal.DENIED, is_denied or any(code in said for code in _DENIED)),
        (Refusal.NO_BUCKET, any(code in said for code in _NO_BUCKET)),
        (Refusal.MISSING, isinstance(error, known.NotFoundError | FileNotFoundError)),
    )
    # obstore's FileNotFoundError has no number; one that has is of a file of this machine
    if not isinstance(error, known.BaseError) and not (isinstance(error, FileNotFoundError) and error.errno is None):
        return None
    return next((kind for kind, holds in kinds if holds), Refusal.OTHER)


def words_of(refusal: Refusal, error: BaseException, where: str) -> str:
    """Return what a failed request is told as, with what to do; `where` is the URL that it was for."""
    cause = _cause(error)
    if _SKEWED in cause:
        return f"this machine's clock is not the bucket's ({cause}); set it and run the command again"
    if refusal is Refusal.CREDENTIALS:
        return f"the credentials are not accepted ({cause}); renew them and run the command again"
    if refusal is Refusal.DENIED:
        return f"access denied ({cause}); ask the owner of the bucket for the right to it"
    if refusal is Refusal.NO_BUCKET:
        return f"there is no bucket {where.split('/')[2]!r}; check its name and the endpoint"
    if refusal is Refusal.MISSING:
        return "does not exist"
    if refusal is Refusal.CONDITION:
        return "has changed since it was listed"
    return cause


def _cause(error: BaseException) -> str:
    """Return what went wrong in a few words: the bucket's own code and message where it gave them; never a query."""
    text = str(error)
    if found := _CODE.search(text):
        return one_line(": ".join(part for part in found.groups() if part))[:200]
    if found := _STATUS.search(text):
        return found[1].strip()
    return _QUERY.sub("", one_line(text.strip().split("\n\n")[0]))[:300] or "failed without a word"
