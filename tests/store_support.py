"""What the engine's tests share: videos made of numbers, a flow that costs nothing, and runs on them."""

from collections.abc import Container, Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.config import ExtractConfig, load_config
from motionbox.errors import ClipError, Reason
from motionbox.extraction.executors import SerialExecutor
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.work_unit import FrameSource, process_unit
from motionbox.flow import FlowEstimator
from motionbox.inputs.schema import build_table
from motionbox.store.units import Unit, units_of
from motionbox.store.writing.attempt import Attempt, UnitRows
from motionbox.store.writing.commit import UnitTables
from motionbox.store.writing.runs import Run, RunInputs, open_or_create_run, prepare_store
from motionbox.video.frames import WHOLE, Frame, Span, VideoHint, VideoInfo
from motionbox.video.sources import until

SIDE = 48


class NumberSource:
    """Decodes `<frames>@<fps>` text files: a bright square that moves over noise, the same every time.

    In colour, green says which frame it is: see `green_of`.
    """

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self.opened: list[tuple[object, ...]] = []

    def open(self, path: Path, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        self.opened.append((path.name, span.start_seconds, span.stop_seconds, span.frame_fps))
        if not path.exists():
            raise ClipError(Reason.MISSING, f"{path} does not exist")
        text = path.read_text()
        if text.startswith("error "):
            raise ClipError(Reason(text.split()[1]), f"{path.name}: planted")
        count, _, rest = text.partition("@")
        fps, _, breaks = rest.partition("!")
        info = VideoInfo(SIDE * 2, SIDE * 2, float(fps), None, int(count), "numbers", "text", 0)
        frames = self._frames(path.stem, int(count), float(fps), span.start_seconds, span.stop_seconds, breaks)
        return info, until(frames, span.enough_seconds)

    def _frames(
        self, name: str, count: int, fps: float, start: float | None, stop: float | None, breaks: str
    ) -> Generator[Frame]:
        seed = sum(name.encode())
        base = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE), np.uint8)
        for index in range(count):
            time = index / fps
            if breaks and index >= int(breaks):
                raise ClipError(Reason.TRUNCATED, f"{name}: breaks off")
            if (start is None or time >= start) and (stop is None or time < stop):
                grey = base.copy()
                x = (3 * index + seed) % (SIDE - 12)
                grey[10:22, x : x + 12] = 200
                rgb = np.stack([grey, np.full_like(grey, green_of(index)), grey], axis=2)
                yield Frame(index, time, grey, rgb if self._colour else None)


def green_of(index: int) -> int:
    """Return the green of a frame of a text video, 10 grey levels from that of its neighbours at least."""
    return 30 + 10 * (7 * index % 19)


class DifferenceFlow:
    """A stand-in for flow whose result depends on both frames and, where given, on the first guess."""

    name = "difference"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        frame0: npt.NDArray[np.uint8],
        frame1: npt.NDArray[np.uint8],
        *,
        initial: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        self.calls += 1
        change = (frame1.astype(np.float32) - frame0) / 64
        flow = np.stack([change, change.T], axis=2)
        return (flow if initial is None else flow + 0.25 * initial).astype(np.float32)


def number_executor(source: NumberSource | None = None, flow: FlowEstimator | None = None) -> SerialExecutor:
    """Return an executor in this process that decodes text videos."""
    tools = (source or NumberSource(), flow or DifferenceFlow())
    return SerialExecutor(lambda *_: tools)


def number_videos(root: Path, videos: dict[str, str]) -> pa.Table:
    """Write text videos and return the manifest of whole-video clips."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in videos.items():
        if text:
            (root / f"{name}.num").write_text(text)
    names = list(videos)
    return build_table({"clip_id": names, "video_id": names, "path": [f"{name}.num" for name in names]})


def make_run(
    store: Path,
    root: Path,
    manifest: pa.Table,
    *,
    config: ExtractConfig | None = None,
    max_frames: int = 4096,
    new_run: bool = False,
) -> Run:
    """Create or resume a run over text videos."""
    prepare_store(store)
    inputs = scan_inputs(root, manifest.column("path").to_pylist())
    parts = RunInputs("folder", root, manifest, inputs, config or small_config())
    return open_or_create_run(
        store,
        parts,
        lambda: plan_units(manifest, inputs, root, number_hint, max_frames=max_frames, probe_min_bytes=0),
        new_run=new_run,
    )


def number_hint(path: Path) -> VideoHint | None:
    """Return the length that a text video claims."""
    count, _, rest = path.read_text().partition("@")
    return VideoHint(int(count), float(rest.partition("!")[0])) if rest else None


def small_config(**overrides: object) -> ExtractConfig:
    """Return the default configuration with coarse maps, for frames of `SIDE`, without the duplicate finder."""
    own = {"frames.duplicate_ratio": 0.0, "frames.short_side_px": SIDE, "store.map_scale": 4}
    return load_config("paper", overrides={**own, **overrides})


def unit_tables(unit: Unit, config: ExtractConfig, root: Path, source: FrameSource, flow: FlowEstimator) -> UnitTables:
    """Return what processing a unit gives, as tables."""
    rows = UnitRows(config.store)
    for entry in process_unit(unit, config, root, source, flow):
        rows.add(entry)
    return rows.tables()


def commit_units(run: Run, *, skip: Container[str] = (), colour: bool = False) -> None:
    """Process and commit the units of a run over text videos."""
    for unit in units_of(run.plan()):
        if unit.unit_id not in skip:
            with Attempt(run.paths, unit.unit_id, run.config.store) as attempt:
                source = NumberSource(colour=colour)
                for rows in process_unit(unit, run.config, run.data_root, source, DifferenceFlow()):
                    attempt.add(rows)
                attempt.commit()
