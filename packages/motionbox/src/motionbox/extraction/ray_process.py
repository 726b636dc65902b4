"""The process beside `motionbox extract` that talks to Ray: tasks come in through a pipe, answers go back.

Ray ends its whole process when it loses the head node, takes over the handlers of signals and writes what it likes to
the output. Here it may: the command sees a pipe that closes, and ends by its own exit codes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from motionbox.errors import InputError, Reason
from motionbox.extraction.worker import Acknowledgement, Task, execute, last_heard
from motionbox.store.writing.failures import Fault

HEAD_LOST = 75
"""Exit code of this process where the head node has not answered for `HEAD_SECONDS`."""
HEAD_SECONDS = 15.0

# Kernels run on one thread: a worker is one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# Results travel through the store, never through Ray's object store.
_OBJECT_STORE_BYTES = 128 << 20
# After a flow a frame costs a core about five times what the flow cost the GPU (docs/gpu.md).
_UNITS_PER_GPU = 5
_WAIT_SECONDS = 0.1
_PROBE_SECONDS = 2.0


class SlowStart(InputError):  # noqa: N818  (a state, not a fault)
    """Ray on this machine has not started within the 30 s that it gives itself."""


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """What Ray is asked for.

    Attributes:
        num_workers: CPU workers; 0: one for each CPU of the cluster.
        address: Address of a cluster; None starts Ray on this machine.
        num_gpus: GPUs to use; each is shared by `_UNITS_PER_GPU` units, most of them at work on the CPU.
    """

    num_workers: int
    address: str | None = None
    num_gpus: int = 0


class RayTasks:
    """The tasks that Ray has, and what became of them."""

    def __init__(self, ray: Any, options: RayOptions) -> None:
        """Start Ray or join a cluster.

        Raises:
            InputError: Ray cannot start or be reached, or has fewer GPUs.
        """
        self._ray = ray
        self._num_gpu_slots = options.num_gpus * _UNITS_PER_GPU
        start_ray(ray, options.num_workers + self._num_gpu_slots, options.address)
        resources = ray.cluster_resources()
        if resources.get("GPU", 0) < options.num_gpus:
            found = f"{resources.get('GPU', 0):g}"
            raise InputError(f"--gpus must be at most the {found} GPUs that Ray finds, got {options.num_gpus}")
        cores = int(resources.get("CPU", 0))
        self.num_slots = max(1, min(options.num_workers or cores, cores)) + self._num_gpu_slots
        self._execute = ray.remote(execute)
        self._tasks: dict[Any, Task] = {}
        self._on_gpu: set[str] = set()
        self._cancelled: set[str] = set()

    def submit(self, task: Task) -> None:
        """Hand the task to Ray, to a GPU while one has a free place."""
        gpus = 0.0
        if len(self._on_gpu) < self._num_gpu_slots:
            gpus = 1 / _UNITS_PER_GPU
            task = dataclasses.replace(task, backend="cuda")
            self._on_gpu.add(task.token)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
        self._tasks[self._execute.options(**options).remote(task)] = task

    def cancel(self, token: str) -> None:
        """Kill the worker that has the task with this token."""
        self._cancelled.add(token)
        for reference, known in self._tasks.items():
            if known.token == token:
                self._ray.cancel(reference, force=True)

    def finished(self, timeout_seconds: float) -> list[Acknowledgement]:
        """Return the answers of finished tasks; a crashed worker's answer is a fault."""
        if not self._tasks:
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout_seconds)
        return [self._answer(reference) for reference in ready]

    @property
    def idle(self) -> bool:
        """Return whether Ray has no task."""
        return not self._tasks

    def _answer(self, reference: Any) -> Acknowledgement:
        task = self._tasks.pop(reference)
        self._on_gpu.discard(task.token)
        errors = self._ray.exceptions
        try:
            answer: Acknowledgement = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            return _faulty(task, Reason.OUT_OF_MEMORY, _first_line(error))
        except errors.NodeDiedError as error:
            return Acknowledgement(task.unit.unit_id, lost=_first_line(error))
        except (errors.WorkerCrashedError, errors.TaskCancelledError) as error:
            if task.token in self._cancelled:
                return _faulty(task, Reason.TIMEOUT, "the worker showed no sign of life and was killed")
            return _faulty(task, Reason.CRASHED, _first_line(error))
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            return Acknowledgement(task.unit.unit_id, fatal=_first_line(getattr(error, "cause", None) or error))
        except errors.RayError as error:
            return Acknowledgement(task.unit.unit_id, lost=_first_line(error))
        return answer


def start_ray(ray: Any, num_workers: int, address: str | None) -> None:
    """Start Ray on this machine, whatever other Ray there is, or join the cluster at an address.

    Raises:
        InputError: It cannot start or be reached.
        SlowStart: It was too slow.
    """
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": {**_ONE_THREAD, "PYTHONSAFEPATH": "1"}},
    }
    if address is None:
        options |= {
            "address": "local",  # None would mean the cluster of RAY_ADDRESS, or one whose address file lies about
            "num_cpus": num_workers,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_temp_dir": str(Path.cwd()),
        }
    else:
        options["address"] = address
        options["runtime_env"]["py_modules"] = [str(Path(__file__).parents[1])]
    try:
        ray.init(**options)
    except Exception as error:  # a bare one where a node does not start in time, many kinds elsewhere
        where, remedy = "local workers", "run it again when the machine is less busy, or with --workers 0"
        if address:
            where, remedy = f"cluster {address}", "check --ray-address, or use --executor serial"
        kind = SlowStart if address is None and "timed out during startup" in str(error) else InputError
        raise kind(f"Ray cannot reach or start its {where}: {_first_line(error).rstrip('.')}; {remedy}") from None


def watch_head(gcs_address: str) -> None:
    """End this process, in the background, once a head node has refused connections for `HEAD_SECONDS`.

    Ray itself waits for a minute and then aborts the process.
    """
    host, _, port = gcs_address.rpartition(":")

    def watch() -> None:
        heard = time.monotonic()
        while time.monotonic() - heard < HEAD_SECONDS:
            time.sleep(_PROBE_SECONDS)
            with contextlib.suppress(OSError):
                socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
                heard = time.monotonic()
        os._exit(HEAD_LOST)

    threading.Thread(target=watch, name="head", daemon=True).start()


def serve(connection: Connection, options: RayOptions) -> None:
    """Answer the command until it closes the pipe or ends.

    Messages are pairs: `("submit", Task)` and `("cancel", token)` come; `("ready", slots)`, `("refused", line)`,
    `("slow", line)`, `("answer", Acknowledgement)` and `("lost", line)` go.
    """
    import ray

    try:
        tasks = RayTasks(ray, options)
    except InputError as error:
        connection.send(("slow" if isinstance(error, SlowStart) else "refused", str(error)))
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # the command decides what they mean
        signal.signal(number, signal.SIG_IGN)
    if options.address is None or "://" not in options.address:
        watch_head(ray.get_runtime_context().gcs_address)
    try:
        connection.send(("ready", tasks.num_slots))
        with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
            while True:
                while connection.poll(None if tasks.idle else 0):
                    kind, content = connection.recv()
                    (tasks.submit if kind == "submit" else tasks.cancel)(content)
                for answer in tasks.finished(_WAIT_SECONDS):
                    connection.send(("answer", answer))
    except Exception as error:  # whatever Ray raises when its connection breaks
        connection.send(("lost", _first_line(error)))
    finally:
        ray.shutdown()


def main() -> None:
    """Serve the pipe whose descriptor is the only argument, from a folder of its own that goes with this process."""
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection, connection.recv())
    finally:
        shutil.rmtree(Path.cwd(), ignore_errors=True)


def _faulty(task: Task, reason: Reason, message: str) -> Acknowledgement:
    return Acknowledgement(task.unit.unit_id, fault=Fault(reason, message, last_heard(task)[0]))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
