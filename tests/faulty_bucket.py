"""A bucket for tests: moto's server on the loopback address, which breaks requests where it is told to."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BUCKET = "trials"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
# Clients of tests wait longer than a busy machine makes them, and not as long as a cloud may be down.
PATIENCE = {
    "MOTIONBOX_CLOUD_RETRY_SECONDS": "60",
    "MOTIONBOX_CLOUD_TIMEOUT_SECONDS": "20",
    "MOTIONBOX_LEASE_SECONDS": "20",
}


@dataclass(frozen=True)
class Bucket:
    """Where the server listens.

    Attributes:
        port: On the loopback address.
        sound_port: Where no request is broken.
    """

    port: int
    sound_port: int

    def environment(self, *, sound: bool = False) -> dict[str, str]:
        """Return the variables by which a process finds the bucket."""
        endpoint = f"http://127.0.0.1:{self.sound_port if sound else self.port}"
        return {**CREDENTIALS, **PATIENCE, "AWS_ENDPOINT_URL": endpoint}

    def plant(self, part: str, kind: str, nth: int = 1, count: int = 1, **where: str) -> None:
        """Break requests whose path or query holds `part`; see `fault_server`."""
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
    """Start the server; stop it in the end."""
    program = [sys.executable, str(Path(__file__).with_name("fault_server.py")), BUCKET]
    environment = {**os.environ, **CREDENTIALS}
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Bucket(*map(int, server.stdout.readline().split()))
        finally:
            server.kill()
