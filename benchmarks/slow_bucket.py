"""A folder served as an S3 bucket by a process of its own, which holds every answer back.

It answers from memory with little work of a processor, so that a reader beside it on the same machine is measured, and
not the server. It knows what readers ask for: whole objects, ranges, sizes, and lists.
"""

from __future__ import annotations

import asyncio
import email.utils
import multiprocessing
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_RANGE = re.compile(r"^range: *bytes=(\d+)-(\d+)", re.IGNORECASE | re.MULTILINE)
_DATE = email.utils.formatdate(0, usegmt=True)


class _Client(asyncio.Protocol):
    """A connection: one request after the other, each without a body."""

    def __init__(self, bucket: _Bucket) -> None:
        self._bucket, self._received = bucket, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            self._bucket.num_requests += 1
            asyncio.get_running_loop().call_later(self._bucket.seconds, self._answer, head.decode())

    def _answer(self, head: str) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(self._bucket.answer(head))


class _Bucket:
    """What is asked of the bucket `bucket`, and what it answers."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.seconds, self.num_requests = seconds, 0
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        self._objects = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def answer(self, head: str) -> list[bytes]:
        method, target, _ = head.split(" ", 2)
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        key = urllib.parse.unquote(url.path).removeprefix("/bucket").strip("/")
        if "list-type" in query:
            return _answer(200, self._listing(query.get("prefix", ""), query.get("delimiter", "")))
        if key not in self._objects:
            return _answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data, told = self._objects[key], [f"ETag: {key}", f"Last-Modified: {_DATE}"]
        if method == "HEAD":
            return _answer(200, b"", f"Content-Length: {len(data)}", *told)
        if found := _RANGE.search(head):
            start, stop = int(found[1]), min(int(found[2]) + 1, len(data))
            told.append(f"Content-Range: bytes {start}-{stop - 1}/{len(data)}")
            return _answer(206, data[start:stop], *told)
        return _answer(200, data, *told)

    def _listing(self, prefix: str, delimiter: str) -> bytes:
        entries, folders = [], set()
        for key, data in self._objects.items():
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter, 1)[0] + delimiter)
            else:
                entries.append((key, len(data)))
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>{escape(key)}</ETag>"
            "<LastModified>1970-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, size in entries
        )
        found += "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()


def _answer(status: int, body: bytes, *lines: str) -> list[bytes]:
    length = [] if any(line.startswith("Content-Length") for line in lines) else [f"Content-Length: {len(body)}"]
    return ["\r\n".join([f"HTTP/1.1 {status} .", *length, *lines, "", ""]).encode(), body]


def _serve(folder: Path, seconds: float, pipe: Connection) -> None:
    async def run() -> None:
        bucket = _Bucket(folder, seconds)
        server = await asyncio.get_running_loop().create_server(lambda: _Client(bucket), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(bucket.num_requests)

    asyncio.run(run())


@dataclass(frozen=True)
class SlowBucket:
    """A bucket named `bucket` that is being served.

    Attributes:
        environment: Variables that lead programs to it.
    """

    environment: dict[str, str]
    _pipe: Connection

    def num_requests(self) -> int:
        """Return how many requests came so far."""
        self._pipe.send(None)
        return int(self._pipe.recv())


@contextmanager
def slow_bucket(folder: Path, seconds: float) -> Iterator[SlowBucket]:
    """Serve what lies in a folder, every answer held back for some seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(folder, seconds, there), daemon=True)
    process.start()
    try:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        yield SlowBucket({**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{here.recv()}"}, here)
    finally:
        process.terminate()
        process.join()
