"""SIGINT and SIGTERM at any moment of a command: one line, exit code 75, and the same command goes on."""

import importlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from motionbox.cli import main
from motionbox.errors import Interrupted
from motionbox.signals import deferred, handling, interrupted_by_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def handlers_stay():
    """Every test leaves the handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@BOTH
def test_a_signal_interrupts_even_where_every_error_is_swallowed(number: signal.Signals) -> None:
    def swallow() -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception:
            pytest.fail("a library took it for one of its errors")
        pytest.fail("the block went on")

    with pytest.raises(Interrupted, match=f"stopped by {number.name}; run the same command again"):  # noqa: SIM117
        with interrupted_by_signals():
            swallow()


def test_signals_can_have_another_meaning_for_a_while() -> None:
    names: list[str] = []
    with interrupted_by_signals():
        outer = signal.getsignal(signal.SIGTERM)
        with handling(names.append):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert names == ["SIGTERM", "SIGINT"]
        assert signal.getsignal(signal.SIGTERM) is outer


def test_signals_wait_for_what_must_not_be_left_half_done() -> None:
    done = []

    def work() -> None:
        with interrupted_by_signals():
            with deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("the block")
            done.append("what follows")

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        work()
    assert done == ["the block"]


def test_somebody_elses_handler_is_taken_back() -> None:
    with interrupted_by_signals():
        ours = signal.getsignal(signal.SIGTERM)
        with deferred():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        assert signal.getsignal(signal.SIGTERM) is ours


def test_other_threads_leave_the_handlers_alone() -> None:
    seen = []

    def work() -> None:
        with interrupted_by_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_once_the_exit_code_is_settled_a_signal_changes_nothing() -> None:
    script = (
        "import atexit, os, signal, sys; from motionbox.cli import main;"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM)); sys.argv = ['motionbox', 'no-such']; main()"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 2


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        write_video(root / f"{name}.mp4", np.random.default_rng(0).integers(0, 255, (6, 48, 64), np.uint8))
    return root


def extract(videos: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(["extract", "--data-root", str(videos), "--store", str(store), "--flow", "dis", "--workers", "0"])
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    "place",
    [
        "motionbox.inputs.data_check:check_data",
        "motionbox.extraction.plan:scan_inputs",
        "motionbox.extraction.plan:plan_units",
        "motionbox.store.writing.attempt:publish_commit",
        "motionbox.extraction.snapshot:read_parts",
        "motionbox.extraction.snapshot:sha256_file",
        "motionbox.store:open_store",
    ],
)
@BOTH
def test_an_extraction_can_be_stopped_anywhere(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, place: str, number: signal.Signals
) -> None:
    module, name = place.split(":")
    owner = importlib.import_module(module)
    real = getattr(owner, name)

    def signalled(*arguments, **options):
        os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, signalled)
    code, err = extract(videos, tmp_path / "s", capsys)
    told = [line for line in err.splitlines() if not line.startswith("extract: ")]
    assert code == 75
    assert len(told) == 1
    assert told[0].startswith(f"motionbox: error: stopped by {number.name}")
    assert not list((tmp_path / "s").glob("runs/*/snapshots/.*")), "a half-written snapshot is cleared away"
    monkeypatch.setattr(owner, name, real)
    assert extract(videos, tmp_path / "s", capsys)[0] == 0
