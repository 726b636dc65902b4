"""The folder of a generated set: written below `.partial`, published whole, reused, completed or refused.

A run that was killed leaves `.partial`; the next one with the same parameters keeps its finished clips, another one
starts it over. The marker is written last: a folder without it is unfinished.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError, safe_path

MARKER = "synthetic.json"
_PARTIAL = ".partial"
_PARAMETERS = "parameters.json"
_CLIPS = "clips"
_FEWEST_FOR_POOL = 8  # starting worker processes costs more than drawing fewer clips
Box = tuple[int, int, int, int]
Work = TypeVar("Work")


class Planned(Protocol):
    """A clip that is to be drawn."""

    @property
    def clip_id(self) -> str:
        """Return its name."""
        ...

    @property
    def path(self) -> str:
        """Return its video, below the set's folder."""
        ...


Plan = TypeVar("Plan", bound=Planned)


@dataclass(frozen=True)
class SetFolder:
    """Where a generated set goes, and what decides its content.

    Attributes:
        root: The folder.
        parameters: Everything that decides the content, as JSON; another value is another set.
        parts: Files and folders of the finished set, in the order in which they are published.
    """

    root: Path
    parameters: Mapping[str, Any]
    parts: Sequence[str]

    @property
    def partial(self) -> Path:
        """Folder of the unfinished set."""
        return self.root / _PARTIAL

    def is_complete(self, paths: Iterable[str]) -> bool:
        """Say whether the folder holds exactly this set.

        Args:
            paths: Files of the set, relative to the root.

        Raises:
            InputError: It holds another set, or has lost files.
        """
        if not (self.root / MARKER).exists():
            return False
        found = read_json(self.root / MARKER)
        if not isinstance(found, dict) or {key: found.get(key) for key in self.parameters} != self.parameters:
            raise InputError(
                f"{self.root} holds another generated data set ({MARKER} differs); choose another folder or remove it"
            )
        lost = [path for path in paths if not (self.root / path).is_file()]
        if lost:
            raise InputError(
                f"{self.root} has lost {len(lost)} of its files, first {lost[0]}; remove the folder and run again"
            )
        return True

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """Open the folder of the unfinished set, see `open_partial`, and say in one line what cannot be written.

        Raises:
            InputError: The folder holds something else, or cannot be written.
        """
        try:
            yield self.open_partial()
        except OSError as error:
            raise InputError(
                f"cannot write the generated data set to {self.root}: {error}; choose another folder"
            ) from error

    def draw_missing(
        self,
        plans: Sequence[Plan],
        draw: Callable[[Plan], None],
        num_workers: int,
        progress: Callable[[int, int], None] | None,
    ) -> int:
        """Draw the planned clips that are not there yet, then write the lists of all.

        Args:
            plans: The clips.
            draw: Draws one and calls `write_clip` in the folder of the unfinished set; goes to other processes.
            num_workers: Processes that draw.
            progress: Called with (clips done, clips in all).

        Returns:
            How many were drawn.
        """
        boxes = {plan.clip_id: _beside(self.partial, plan.clip_id, "boxes") for plan in plans}
        missing = [plan for plan in plans if not boxes[plan.clip_id].is_file()]
        for done, _ in enumerate(draw_all(draw, missing, num_workers), start=len(plans) - len(missing) + 1):
            if progress is not None:
                progress(done, len(plans))
        write_csv(self.partial / "annotations.csv", [read_json(_beside(self.partial, p.clip_id, "row")) for p in plans])
        write_boxes(self.partial / "boxes.json", boxes)
        return len(missing)

    def open_partial(self) -> Path:
        """Return the folder of the unfinished set, made anew where it is of other parameters.

        Raises:
            InputError: The folder holds something else.
        """
        partial = self.partial
        self.root.mkdir(parents=True, exist_ok=True)
        found = read_json(partial / _PARAMETERS)
        strangers = {entry.name for entry in self.root.iterdir()} - {_PARTIAL}
        if strangers - (set(self.parts) if found == self.parameters else set()):
            raise InputError(
                f"{self.root} must be a new or empty folder, it holds {min(strangers)!r}; choose another folder"
            )
        if found == self.parameters:
            return partial
        if partial.exists() and any(partial.iterdir()) and found is None:
            raise InputError(f"{partial} was not made by this command; choose another folder or remove it")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_atomically(partial / _PARAMETERS, json.dumps(self.parameters).encode())
        for name in ("videos", "masks", _CLIPS):
            (partial / name).mkdir()
        return partial

    def publish(self, described: Mapping[str, Any]) -> None:
        """Move the finished parts to their places; the marker, with `described` added, comes last."""
        for part in self.parts:
            if (self.partial / part).exists():
                (self.partial / part).replace(self.root / part)
        content = {**self.parameters, **described}
        write_atomically(self.root / MARKER, (json.dumps(content, indent=2) + "\n").encode())
        shutil.rmtree(self.partial)


def _beside(partial: Path, clip_id: str, what: str) -> Path:
    """Return the file with a clip's boxes, whose presence says that the clip is complete, or with its row."""
    return partial / _CLIPS / f"{clip_id.replace('/', '-')}.{what}.json"


def write_clip(
    partial: Path,
    plan: Planned,
    video: bytes,
    masks: NDArray[np.bool_],
    row: Mapping[str, Any],
    labels: Sequence[Mapping[str, Any]],
) -> None:
    """Write a drawn clip into the folder of the unfinished set; it counts once all of it is there.

    Args:
        partial: The folder.
        plan: The clip.
        video: Its encoded frames.
        masks: (T, H, W), what moves.
        row: Its row of annotations.csv.
        labels: Its frames' boxes, see `frame_label`.
    """
    write_atomically(partial / plan.path, video)
    write_masks(partial / "masks" / plan.clip_id, masks)
    write_atomically(_beside(partial, plan.clip_id, "row"), json.dumps(row).encode())
    boxes = json.dumps(labels, separators=(",", ":")).encode()
    write_atomically(_beside(partial, plan.clip_id, "boxes"), boxes)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, None where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_boxes(path: Path, sidecars: Mapping[str, Path]) -> None:
    """Join the clips' box files, by clip id, into one JSON object."""
    clips = (f'"{clip_id}":{sidecar.read_text(encoding="utf-8")}' for clip_id, sidecar in sidecars.items())
    write_atomically(path, ("{" + ",\n".join(clips) + "}\n").encode())


def write_masks(folder: Path, masks: NDArray[np.bool_]) -> None:
    """Write (T, H, W) masks as PNG files of 0 and 255, `000000.png` for the first frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        picture = mask.astype(np.uint8) * 255
        write_atomically(
            folder / f"{index:06d}.png", cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
        )


def frame_label(clip_id: str, index: int, boxes: Iterable[tuple[str, str, Box]]) -> dict[str, Any]:
    """Return one frame's entry in the form of the Something-Else annotations (frames count from 1).

    Args:
        clip_id: The clip.
        index: The frame, from 0.
        boxes: (category, role, xyxy) of what is in the picture; boxes that begin at -1 are left out.
    """
    labels = [
        {
            "box2d": dict(zip(("x1", "y1", "x2", "y2"), map(int, box), strict=True)),
            "category": category,
            "gt_annotation": role,
        }
        for category, role, box in boxes
        if box[0] >= 0
    ]
    return {"name": f"{clip_id}/{index + 1:04d}", "labels": labels}


def draw_all(draw: Callable[[Work], None], work: Sequence[Work], num_workers: int) -> Iterator[None]:
    """Call `draw` on every piece of work, in processes where that pays; yields once per finished piece."""
    if num_workers <= 1 or len(work) < _FEWEST_FOR_POOL:
        for piece in work:
            draw(piece)
            yield
        return
    with safe_path(), ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(draw, piece) for piece in work]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
