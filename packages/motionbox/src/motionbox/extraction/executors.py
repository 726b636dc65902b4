"""Where units are executed: in this process, or on Ray."""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Protocol

from motionbox.errors import InputError, Interrupted, Reason
from motionbox.extraction.worker import Acknowledgement, Task, execute, last_heard
from motionbox.signals import deferred
from motionbox.store.writing.failures import Fault

# Kernels run on one thread: a worker is one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# Results travel through the store, never through Ray's object store.
_OBJECT_STORE_BYTES = 128 << 20
# After a flow a frame costs a core about five times what the flow cost the GPU (docs/gpu.md).
_UNITS_PER_GPU = 5
_SIGNAL_SECONDS = 0.2


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
    """Executes tasks in this process, one after the other: for debugging."""

    def __init__(self) -> None:
        self.num_slots = 1
        self._waiting: list[tuple[Task, Callable[[], None]]] = []

    def submit(self, task: Task, check: Callable[[], None]) -> None:
        """Keep the task until `wait`."""
        self._waiting.append((task, check))

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:  # noqa: ARG002
        """Execute the submitted task."""
        task, check = self._waiting.pop()
        try:
            return [execute(task, check=check)]
        except Interrupted:
            return []

    def cancel(self, task: Task) -> None:
        """Do nothing: an interrupted task has already ended."""

    def close(self) -> None:
        """Do nothing."""


class RayExecutor:
    """Executes tasks on Ray: local workers, or those of a cluster; GPU units beside CPU units where asked for.

    At most `num_slots` tasks are under way; what they return is an `Acknowledgement`.

    Args:
        num_workers: CPU workers; 0: one for each CPU of the cluster.
        address: Address of a cluster; None starts Ray on this machine.
        num_gpus: GPUs to use; each is shared by `_UNITS_PER_GPU` units, most of them at work on the CPU.

    Raises:
        InputError: Ray cannot start or be reached, or has fewer GPUs.
    """

    def __init__(self, *, num_workers: int, address: str | None = None, num_gpus: int = 0) -> None:
        self._ray: Any = import_ray(local=address is None)
        self._num_gpu_slots = num_gpus * _UNITS_PER_GPU
        self._own = not self._ray.is_initialized()
        if self._own:
            _start_ray(self._ray, num_workers + self._num_gpu_slots, address)
        resources = self._ray.cluster_resources()
        if resources.get("GPU", 0) < num_gpus:
            found = f"{resources.get('GPU', 0):g}"
            self.close()
            raise InputError(f"--gpus must be at most the {found} GPUs that Ray finds, got {num_gpus}")
        cores = int(resources.get("CPU", 0))
        self.num_slots = max(1, min(num_workers or cores, cores)) + self._num_gpu_slots
        self._execute = self._ray.remote(execute)
        self._tasks: dict[Any, Task] = {}
        self._on_gpu: set[str] = set()
        self._cancelled: set[str] = set()

    def submit(self, task: Task, check: Callable[[], None]) -> None:  # noqa: ARG002
        """Hand the task to Ray, to a GPU while one has a free place."""
        gpus = 0.0
        if len(self._on_gpu) < self._num_gpu_slots:
            gpus = 1 / _UNITS_PER_GPU
            task = dataclasses.replace(task, backend="cuda")
            self._on_gpu.add(task.token)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
        self._tasks[self._execute.options(**options).remote(task)] = task

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:
        """Return the answers of finished tasks; a crashed worker's answer is a fault."""
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout_seconds)
        return [self._answer(reference) for reference in ready]

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

    def cancel(self, task: Task) -> None:
        """Kill the task's worker."""
        self._cancelled.add(task.token)
        for reference, known in self._tasks.items():
            if known.token == task.token:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Stop a Ray that this executor started; leave a cluster alone."""
        if self._own:
            with deferred():  # Ray does not survive an exception in the middle of it
                self._ray.shutdown()


def import_ray(*, local: bool) -> Any:
    """Import Ray with safe settings, which it reads only once: a token of its own for a local Ray, no usage reports."""
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if local:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    return ray


def _start_ray(ray: Any, num_workers: int, address: str | None) -> None:
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": {**_ONE_THREAD, "PYTHONSAFEPATH": "1"}},
    }
    if address is None:
        options |= {
            "num_cpus": num_workers,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
        options["runtime_env"]["py_modules"] = [str(Path(__file__).parents[1])]
    if address is None or not address.startswith("ray://"):  # a client's driver runs elsewhere
        options["job_config"] = _job_config(ray)
    try:
        _init_ray(ray, options)
    except Exception as error:  # a bare one where a node does not start in time, many kinds elsewhere
        where = f"cluster {address}" if address else "local workers"
        raise InputError(
            f"Ray cannot reach or start its {where}: {_first_line(error)}; "
            "check --ray-address, or use --executor serial"
        ) from None


def _job_config(ray: Any) -> Any:
    """Return Ray's settings of a job, made to keep this process's working folder off the workers' module path.

    Ray puts it before everything else there, unless a working folder is shipped to the workers.
    """

    class JobConfig(ray.job_config.JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return JobConfig()


def _init_ray(ray: Any, options: dict[str, Any]) -> None:
    """Start Ray in a thread: in the main thread it sets handlers, and a signal half-way makes it crash the process.

    Ray's processes die with the thread that started them, so it stays until this process ends.
    """
    started: Future[None] = Future()

    def start() -> None:
        try:
            ray.init(**options)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        threading.Event().wait()

    with deferred() as signals:
        threading.Thread(target=start, name="ray", daemon=True).start()
        while not wait([started], timeout=_SIGNAL_SECONDS).done:
            if signals:
                signal.alarm(0)  # after SIGTERM the C++ of Ray aborts the process three seconds later
        started.result()


def _faulty(task: Task, reason: Reason, message: str) -> Acknowledgement:
    return Acknowledgement(task.unit.unit_id, fault=Fault(reason, message, last_heard(task)[0]))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
