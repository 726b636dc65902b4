"""Where units are executed: in this process, or on Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any, Protocol

from motionbox.errors import InputError, Interrupted
from motionbox.extraction.media.fetching import give_up_following
from motionbox.extraction.ray_process import HEAD_LOST, HEAD_SECONDS, RayOptions, SlowStart
from motionbox.extraction.worker import Acknowledgement, Task, Tools, default_tools, execute
from motionbox.signals import deferred

_LOG = logging.getLogger(__name__)
_START = "from motionbox.extraction.ray_process import main; main()"
_CLOSE_SECONDS = 20.0
_SLOW_STARTS = 2
_REMOVE_SECONDS = 5.0
# A socket's path has 107 bytes at most; Ray takes so many below its folder for the longest of its sockets.
_SOCKET_PATH_BYTES = 107
_RAY_SOCKET_BYTES = len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
_FOLDER_PREFIX = "mb-ray-"
_FOLDER_BYTES = len(f"/{_FOLDER_PREFIX}12345678")
# What would make a Ray on this machine join another, or fail over one that is gone.
_OF_OTHER_RAYS = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_AUTH_TOKEN_PATH")


class Executor(Protocol):
    """Executes tasks.

    Attributes:
        num_slots: How many tasks may be under way.
    """

    num_slots: int

    def submit(self, task: Task, check: Callable[[], None]) -> None:
        """Begin a task; `check` raises `Interrupted` when it is to be abandoned."""
        ...

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:
        """Return the answers of finished tasks, waiting for one at most `timeout_seconds`."""
        ...

    def cancel(self, task: Task) -> None:
        """Kill a task; a crashed worker's answer may still come."""
        ...

    def close(self) -> None:
        """Let go of the workers."""
        ...


class SerialExecutor:
    """Executes tasks in this process, one after the other: for debugging.

    Args:
        tools: Makes what decodes and what computes the flow.
    """

    def __init__(self, tools: Tools = default_tools) -> None:
        self.num_slots = 1
        self._tools = tools
        self._waiting: list[tuple[Task, Callable[[], None]]] = []

    def submit(self, task: Task, check: Callable[[], None]) -> None:
        """Keep the task until `wait`."""
        self._waiting.append((task, check))

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:  # noqa: ARG002
        """Execute the submitted task."""
        task, check = self._waiting.pop()
        try:
            return [execute(task, check=check, tools=self._tools)]
        except Interrupted:
            return []

    def cancel(self, task: Task) -> None:
        """Do nothing: an interrupted task has already ended."""

    def close(self) -> None:
        """Give up what is fetched for units that will not come."""
        give_up_following()


class RayExecutor:
    """Executes tasks on Ray: local workers, or those of a cluster; GPU units beside CPU units where asked for.

    Ray lives in a process of its own (`ray_process`), in a folder of its own. At most `num_slots` tasks are under way.

    Args:
        num_workers: CPU workers; 0: one for each CPU of the cluster.
        address: Address of a cluster; None starts Ray on this machine, whatever other Ray there is.
        num_gpus: GPUs to use.

    Raises:
        InputError: Ray cannot start or be reached, or has fewer GPUs.
        SlowStart: Ray on this machine was too slow, see `start_ray_executor`.
    """

    def __init__(self, *, num_workers: int, address: str | None = None, num_gpus: int = 0) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        self._address = address
        self._folder = _ray_folder()
        self._log: IO[bytes] = (self._folder / "output.log").open("wb")
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self._folder,  # Ray's workers import from the working folder of the process that starts them
            env=ray_environment(local=address is None),
            start_new_session=True,
        )
        theirs.close()
        try:
            self._connection.send(RayOptions(num_workers, address, num_gpus))
            self.num_slots = int(self._receive("ready"))
        except Interrupted as error:
            self._end(0)
            if self._process.returncode < 0:  # a signal: a job that ends sends it to all of its processes
                raise
            raise InputError(f"Ray cannot start: {error}") from None
        except BaseException:
            self._end(0)
            raise

    def submit(self, task: Task, check: Callable[[], None]) -> None:  # noqa: ARG002
        """Hand the task to Ray."""
        self._send("submit", task)

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:
        """Return the answers of finished tasks; a crashed worker's answer is a fault.

        Raises:
            Interrupted: Ray is gone.
        """
        return [self._receive("answer")] if self._connection.poll(timeout_seconds) else []

    def cancel(self, task: Task) -> None:
        """Kill the task's worker."""
        self._send("cancel", task.token)

    def close(self) -> None:
        """Stop a Ray that this executor started; leave a cluster alone."""
        self._end(_CLOSE_SECONDS)

    def _end(self, grace_seconds: float) -> None:
        with deferred():
            self._connection.close()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._log.close()
            # A Ray whose process was killed goes by itself, and writes to its last moment.
            deadline = time.monotonic() + _REMOVE_SECONDS
            while self._folder.exists() and time.monotonic() < deadline:
                shutil.rmtree(self._folder, ignore_errors=True)
                time.sleep(0.05)

    def _send(self, kind: str, content: Any) -> None:
        try:
            self._connection.send((kind, content))
        except OSError:
            raise self._lost() from None

    def _receive(self, expected: str) -> Any:
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if kind in ("refused", "slow"):
            raise (SlowStart if kind == "slow" else InputError)(content)
        if kind != expected:
            raise Interrupted(f"the connection to Ray broke: {content}; the same command resumes the run")
        return content

    def _lost(self) -> Interrupted:
        """Return the error that says why Ray's process has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)
        if self._process.returncode == HEAD_LOST:
            head = f"the head node of the Ray cluster {self._address}" if self._address else "Ray on this machine"
            return Interrupted(f"{head} has not answered for {HEAD_SECONDS:g} s; the same command resumes the run")
        self._log.flush()
        said = (self._folder / "output.log").read_text(errors="replace").strip().splitlines()
        last = f" ({said[-1][:300]})" if said else ""
        return Interrupted(f"the process that talks to Ray has ended{last}; the same command resumes the run")


def start_ray_executor(*, num_workers: int, address: str | None = None, num_gpus: int = 0) -> RayExecutor:
    """Start an executor; a Ray on this machine that was too slow for its own limit is started anew.

    A busy machine or a disk that is read for the first time makes it so.

    Args:
        num_workers: As of `RayExecutor`, as the following.
        address: Address of a cluster.
        num_gpus: GPUs to use.

    Raises:
        InputError: It cannot start, or was too slow three times.
    """
    for _ in range(_SLOW_STARTS):
        with contextlib.suppress(SlowStart):
            return RayExecutor(num_workers=num_workers, address=address, num_gpus=num_gpus)
        _LOG.info("Ray was slow to start and is started anew")
    return RayExecutor(num_workers=num_workers, address=address, num_gpus=num_gpus)


def ray_environment(*, local: bool) -> dict[str, str]:
    """Return the environment of Ray's process: no usage reports, and for a local Ray nothing of any other.

    Args:
        local: Whether Ray is started on this machine, with a token that nobody else knows.
    """
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **os.environ}
    if local:
        for name in _OF_OTHER_RAYS:
            environment.pop(name, None)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return environment


def _ray_folder() -> Path:
    """Make a folder for Ray's process, below the first temporary folder whose path is short enough for sockets.

    Raises:
        InputError: There is none.
    """
    places = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108
    longest = _SOCKET_PATH_BYTES - _RAY_SOCKET_BYTES - _FOLDER_BYTES
    for place in filter(None, places):
        if len(os.fsencode(place)) <= longest:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=place))
    raise InputError(
        f"Ray needs a temporary folder that can be written and whose path has at most {longest} bytes, none of "
        f"{', '.join(filter(None, places))} is one; set RAY_TMPDIR to one, or use --executor serial"
    )
