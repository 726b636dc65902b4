"""moto's S3 server, which breaks the requests that it is told to: `python fault_server.py BUCKET`.

It prints two ports: at the second one nothing is ever broken.

`POST /__plan__` with `{"part", "kind", "nth", "count"}` plants a fault: of the requests whose path or query holds
`part`, numbers `nth` to `nth + count - 1` are broken (from 1 on; `method` and `only`, a further part of the path,
narrow them). `GET /__seen__?part` says how many there were, by method, and how many were broken.
"""

import json
import logging
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

KINDS = ("500", "503", "cut", "lost", "half", "timeout", "expired", "denied", "skew", "blind", "lag")
_ANSWERS = {
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "503": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "expired": ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
    "denied": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "skew": (
        "403 Forbidden",
        "RequestTimeTooSkewed",
        "The difference between the request time and the server's time is too large.",
    ),
}
_NOTHING_LISTED = b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
_HANG_SECONDS = 22.0

Environ = dict[str, object]


class FaultyServer:
    """A WSGI application around another that stands for a cloud on a bad day."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._plans: dict[str, list[dict]] = defaultdict(list)
        self._seen: dict[str, Counter] = defaultdict(Counter)
        self._lock = threading.Lock()
        self._latency_seconds = 0.0

    def __call__(self, environ: Environ, start: Callable[..., object]) -> Iterable[bytes]:
        path = str(environ["PATH_INFO"])
        query = unquote(str(environ["QUERY_STRING"]))
        if path.startswith("/__"):
            return self._control(path, query, environ, start)
        time.sleep(self._latency_seconds)
        kind = self._planned(str(environ["REQUEST_METHOD"]), f"{path}?{query}")
        if kind in _ANSWERS:
            status, code, message = _ANSWERS[kind]
            data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))])
            return [data]
        if kind == "lag" and "list-type=" in query:  # as providers whose listings come later than their objects
            start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(_NOTHING_LISTED)))])
            return [_NOTHING_LISTED]
        if kind == "timeout":
            time.sleep(_HANG_SECONDS)
        if kind in ("cut", "timeout"):
            return _hang_up(environ)
        if kind == "blind":  # as providers that know no conditions
            environ.pop("HTTP_IF_NONE_MATCH", None)
            environ.pop("HTTP_IF_MATCH", None)
        answer = self._inner(environ, start)
        if kind == "lost":
            b"".join(answer)
            return _hang_up(environ)
        if kind == "half":
            data = b"".join(answer)
            return _halved(data, environ)
        return answer

    def _planned(self, method: str, path: str) -> str | None:
        with self._lock:
            for part, faults in self._plans.items():
                if part in path:
                    self._seen[part][method] += 1
                    for fault in faults:
                        if fault.get("method", method) == method and fault.get("only", "") in path:
                            fault["passed"] = fault.get("passed", 0) + 1
                            if fault["nth"] <= fault["passed"] < fault["nth"] + fault["count"]:
                                self._seen[part]["broken"] += 1
                                return str(fault["kind"])
        return None

    def _control(self, path: str, query: str, environ: Environ, start: Callable[..., object]) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # type: ignore[attr-defined,call-overload]
        with self._lock:
            if path == "/__plan__":
                plan = json.loads(body)
                faults = self._plans[plan.pop("part")]
                if "kind" in plan:
                    faults.append(plan)
                elif plan.get("clear"):
                    faults.clear()
            if path == "/__latency__":
                self._latency_seconds = float(body)
            answer = json.dumps(self._seen[query]).encode()
        start("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]


def _hang_up(environ: Environ) -> list[bytes]:
    connection = environ["werkzeug.socket"]
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("hung up, as planned")


def _halved(data: bytes, environ: Environ) -> Iterable[bytes]:
    yield data[: len(data) // 2]
    _hang_up(environ)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log(self, *_arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    logging.disable()
    inner = DomainDispatcherApplication(create_backend_app)
    assert Client(inner).put(f"/{sys.argv[1]}", headers={"Host": "127.0.0.1"}).status_code == 200
    applications = (FaultyServer(inner), inner)
    servers = [make_server("127.0.0.1", 0, one, threaded=True, request_handler=_Quiet) for one in applications]
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()
    print(*(server.server_port for server in servers), flush=True)  # noqa: T201
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
