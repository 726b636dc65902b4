"""A proxy in front of a bucket's server that breaks what it is told to: `python fault_proxy.py TARGET_PORT`.

It prints its port. `POST /__plan__` with `{"part", "kind", "nth", "count"}` plants a fault: of the requests whose path
or query holds `part`, numbers `nth` to `nth + count - 1` are broken (from 1 on; `method` and `only`, a further part of
the path, narrow them). `GET /__seen__?part` says how many there were, by method, and how many were broken.
"""

import http.client
import json
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

KINDS = ("500", "503", "cut", "lost", "half", "timeout", "expired", "denied")
_ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
}
_HANG_SECONDS = 14.0

plans: dict[str, list[dict]] = defaultdict(list)
seen: dict[str, Counter] = defaultdict(Counter)
lock = threading.Lock()
latency_seconds = [0.0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    target_port = 0

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/__"):
            self._control(body)
            return
        time.sleep(latency_seconds[0])
        kind = self._planned()
        if kind in _ANSWERS:
            self._refuse(*_ANSWERS[kind])
            return
        if kind == "timeout":
            time.sleep(_HANG_SECONDS)
        if kind in ("cut", "timeout"):
            self._hang_up()
            return
        status, headers, data = self._forward(body)
        if kind == "lost":
            self._hang_up()
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "half" else data)
        self.wfile.flush()
        if kind == "half":
            self._hang_up()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def _planned(self) -> str | None:
        path = unquote(self.path)
        with lock:
            for part, faults in plans.items():
                if part in path:
                    seen[part][self.command] += 1
                    for fault in faults:
                        if fault.get("method", self.command) == self.command and fault.get("only", "") in path:
                            fault["passed"] = fault.get("passed", 0) + 1
                            if fault["nth"] <= fault["passed"] < fault["nth"] + fault["count"]:
                                seen[part]["broken"] += 1
                                return str(fault["kind"])
        return None

    def _control(self, body: bytes) -> None:
        with lock:
            if self.path == "/__plan__":
                plan = json.loads(body)
                faults = plans[plan.pop("part")]
                if "kind" in plan:
                    faults.append(plan)
                elif plan.get("clear"):
                    faults.clear()
            if self.path == "/__latency__":
                latency_seconds[0] = float(body)
            answer = json.dumps(seen[unquote(self.path.partition("?")[2])]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing: clients that are killed hang up."""


def main() -> None:
    Handler.target_port = int(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
