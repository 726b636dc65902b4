"""The objects below a URL (`s3://`, `gs://`, `az://`), read through obstore: listed, fetched whole or in part.

Credentials, region and endpoint are those of the cloud's own tools: the environment (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...), or the role of the machine.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motionbox.errors import CredentialsError, InputError
from motionbox.storage.client import Refusal, open_bucket, refusal_of, words_of

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

PART_BYTES = 8 << 20
"""An object is fetched in requests of this size."""

_PARTS_AT_ONCE = 4
_URL = re.compile(r"(?:s3|s3a|gs|az|abfss?)://[^/]+(?:/|$)", re.IGNORECASE)


def is_url(text: object) -> bool:
    """Tell whether a text is the URL of a bucket, or of something in one."""
    return _URL.match(str(text)) is not None


class ChangedError(OSError):
    """An object is no longer the one that was listed."""


@dataclass(frozen=True)
class ObjectEntry:
    """An object as it was listed.

    Attributes:
        key: Its name, relative to the URL that was listed.
        num_bytes: Its size.
        etag: What the provider calls this content; None where it does not say.
    """

    key: str
    num_bytes: int
    etag: str | None


class Objects:
    """The objects below a URL. Pickles as the URL, and opens its connection when it is first used.

    Attributes:
        url: The URL, without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        """Take a URL, see `is_url`.

        Raises:
            InputError: It is none.
        """
        if not is_url(url):
            raise InputError(f"url must be s3://bucket/path, gs://bucket/path or az://container/path, got {url!r}")
        self.url = url.rstrip("/")
        self._store: ObjectStore | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url,)

    def listing(self) -> Iterator[ObjectEntry]:
        """Yield every object, a page of them in memory at a time, in the provider's order.

        Raises:
            OSError: It cannot be listed; see `explained`.
            CredentialsError: The credentials are not valid (any more).
        """
        try:
            for page in self._opened().list():
                for entry in page:
                    yield ObjectEntry(entry["path"], entry["size"], entry["e_tag"])
        except Exception as error:
            raise explained(error, self.url) from None

    def entry(self, key: str) -> ObjectEntry:
        """Return what a listing says of an object.

        Raises:
            OSError: As `read`.
            CredentialsError: As `read`.
        """
        try:
            found = self._opened().head(key)
        except Exception as error:
            raise explained(error, f"{self.url}/{key}") from None
        return ObjectEntry(key, found["size"], found["e_tag"])

    def read(self, key: str) -> bytes:
        """Return the content of an object.

        Raises:
            OSError: It cannot be read; FileNotFoundError where there is none.
            CredentialsError: The credentials are not valid (any more).
        """
        try:
            return bytes(self._opened().get(key).bytes())
        except Exception as error:
            raise explained(error, f"{self.url}/{key}") from None

    def fetch(self, entry: ObjectEntry, descriptor: int, beat: Callable[[], None] | None = None) -> None:
        """Write an object into a file, a few parts of it at a time.

        Args:
            entry: The object as it was listed.
            descriptor: The file, open for writing.
            beat: Called with every part.

        Raises:
            ChangedError: It is another object by now.
            OSError: As `read`.
            CredentialsError: As `read`.
        """
        starts = range(0, entry.num_bytes, PART_BYTES)
        if not starts:
            return
        with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="fetch") as pool:
            parts = [pool.submit(self._fetch_part, entry, descriptor, start) for start in starts]
            try:
                for part in parts:
                    part.result()
                    if beat is not None:
                        beat()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch_part(self, entry: ObjectEntry, descriptor: int, start: int) -> None:
        stop = min(start + PART_BYTES, entry.num_bytes)
        options: GetOptions = {"range": (start, stop)}
        if entry.etag is not None:
            options["if_match"] = entry.etag
        where = f"{self.url}/{entry.key}"
        try:
            answer = self._opened().get(entry.key, options=options)
            size, data = answer.meta["size"], answer.bytes()
        except Exception as error:
            raise explained(error, where) from None
        if size != entry.num_bytes or len(data) != stop - start:
            raise ChangedError(errno.ESTALE, f"{where}: has changed since it was listed")
        os.pwrite(descriptor, data, start)

    def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = open_bucket(self.url)
        return self._store


def explained(error: Exception, where: str) -> Exception:
    """Return what went wrong with an object or a listing, in one line, in place of what obstore raised.

    Returns:
        CredentialsError: The credentials are missing, expired or not accepted: nothing else will work either.
        ChangedError: The object is no longer the one that was asked for.
        FileNotFoundError: No such object or bucket.
        PermissionError: There, but not for us.
        OSError: Anything else, a network that broke included; or the error itself where it is none of storage's.
    """
    refusal = refusal_of(error)
    if refusal is None:
        return error
    said = f"{where}: {words_of(refusal, error, where)}"
    if refusal is Refusal.CREDENTIALS:
        return CredentialsError(said)
    if refusal is Refusal.CONDITION:
        return ChangedError(errno.ESTALE, said)
    missing = refusal in (Refusal.MISSING, Refusal.NO_BUCKET)
    return OSError(errno.ENOENT if missing else errno.EACCES if refusal is Refusal.DENIED else errno.EIO, said)
