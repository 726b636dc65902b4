"""A bucket for tests: moto's server on the loopback address, and a proxy before it that can break requests."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BUCKET = "trials"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
# Clients of tests wait longer than a busy machine makes them, and not as long as a cloud may be down.
PATIENCE = {
    "MOTIONBOX_CLOUD_RETRY_SECONDS": "30",
    "MOTIONBOX_CLOUD_TIMEOUT_SECONDS": "12",
    "MOTIONBOX_LEASE_SECONDS": "10",
}
_SERVER = "import logging; logging.disable(); from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"


@dataclass(frozen=True)
class Bucket:
    """Where the server and the proxy listen.

    Attributes:
        port: Of the proxy.
        server_port: Of the server itself.
    """

    port: int
    server_port: int

    def environment(self, *, direct: bool = False) -> dict[str, str]:
        """Return the variables by which a process finds the bucket, through the proxy unless `direct`."""
        endpoint = f"http://127.0.0.1:{self.server_port if direct else self.port}"
        return {**CREDENTIALS, **PATIENCE, "AWS_ENDPOINT_URL": endpoint}

    def plant(self, part: str, kind: str, nth: int = 1, count: int = 1, **where: str) -> None:
        """Break requests whose path or query holds `part`; see `fault_proxy`."""
        _ask(self.port, "POST", "/__plan__", {"part": part, "kind": kind, "nth": nth, "count": count, **where})

    def watch(self, part: str) -> None:
        """Begin to count the requests whose path or query holds `part`."""
        _ask(self.port, "POST", "/__plan__", {"part": part})

    def mend(self, part: str) -> None:
        """Break no more requests of this part."""
        _ask(self.port, "POST", "/__plan__", {"part": part, "clear": True})

    def delay(self, seconds: float) -> None:
        """Let every request take so much longer."""
        _ask(self.port, "POST", "/__latency__", seconds)

    def seen(self, part: str) -> dict[str, int]:
        """Return how many requests there were, by method, and as `broken` how many were broken."""
        return dict(json.loads(_ask(self.port, "GET", f"/__seen__?{quote(part)}")))


def _ask(port: int, method: str, path: str, content: object = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body=None if content is None else json.dumps(content))
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def running_bucket() -> Iterator[Bucket]:
    """Start the server and the proxy; stop them in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **CREDENTIALS}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER.format(port=port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            _wait_for(port, server)
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("PUT", f"/{BUCKET}", headers={"Content-Length": "0"})
            assert connection.getresponse().status == 200
            proxy_file = Path(__file__).with_name("fault_proxy.py")
            with subprocess.Popen(
                [sys.executable, str(proxy_file), str(port)], stdout=subprocess.PIPE, text=True
            ) as proxy:
                try:
                    assert proxy.stdout is not None
                    yield Bucket(int(proxy.stdout.readline()), port)
                finally:
                    proxy.kill()
        finally:
            server.kill()


def _wait_for(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "moto's server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("moto's server did not start")
