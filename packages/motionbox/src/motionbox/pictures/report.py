"""One self-contained HTML page about a store: totals, failures, distributions and a gallery of clips.

The page loads nothing from anywhere. Numbers of all clips are in it as packed columns; moving previews only of some:
the least and the most confident clips and a few of every class. All names of clips, labels and files are escaped.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from motionbox import __version__
from motionbox.config import FlowConfig
from motionbox.inputs.data_root import DataRoot
from motionbox.motion.maps import dequantise_map
from motionbox.pictures import charts
from motionbox.pictures.footage import ClipBoxes, Panel, View, load_clip
from motionbox.pictures.show import panels_only
from motionbox.store import Store
from motionbox.store.layout import read_json, run_paths
from motionbox.video.encode import encode_image, encode_video
from motionbox.wording import format_seconds

STATUSES = ("ok", "partial", "no_motion", "failed")

_STANDARD = {
    "clip_id", "video_id", "start_seconds", "stop_seconds", "num_frames", "width", "height", "fps", "status", "reason",
    "x1", "y1", "x2", "y2", "path", "start_frame", "stop_frame", "frame_fps", "confidence",
}  # fmt: skip
_MOST_CLASSES = 5000  # a column with more values is no label to filter by
_FRAME_CLIPS, _MAP_CLIPS = 20_000, 300  # clips that the distributions of frames and of motion are taken from
_PREVIEW_PANELS: tuple[Panel, ...] = ("boxes", "areas", "flow")
_PREVIEW_HEIGHT_PX, _PREVIEW_FRAMES, _PREVIEW_SECONDS, _PREVIEW_FPS = 120, 14, 2.5, 8.0
_VP9 = {"crf": "42", "b": "0", "deadline": "realtime", "cpu-used": "7"}


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        num_previews: Clips with a moving preview.
        max_clips: Rows of the gallery; a larger store is sampled evenly.
        data_root: Where the videos are now; None: where they were at extraction.
    """

    num_previews: int = 48
    max_clips: int = 300_000
    data_root: DataRoot | None = None


def build_report(
    store: Store, options: ReportOptions | None = None, *, progress: Callable[[int, int], None] | None = None
) -> str:
    """Return the report of a store as one HTML page.

    Args:
        store: An open store.
        options: What to show.
        progress: Called with (previews drawn, previews in all).
    """
    options = options or ReportOptions()
    clips = store.clips()
    shown = _sampled(clips, options.max_clips)
    chosen = choose_previews(shown, options.num_previews)
    previews = {}
    for done, row in enumerate(chosen, start=1):
        previews[row] = _preview(store, shown.column("clip_id")[row].as_py(), options.data_root)
        if progress is not None:
            progress(done, len(chosen))
    data = _page_data(store, shown, previews)
    return _fill(
        title=f"Motion boxes of {store.run_info()['dataset']}",
        subtitle=f"{store.path} · run {store.run_id}, snapshot {store.snapshot} · motionbox {__version__}",
        tiles=_tiles(store, clips),
        charts=_charts(store, clips),
        failures=_failures(clips),
        facts=_facts(store),
        note=_note(clips, shown, len(previews)),
        data=data,
    )


def _sampled(clips: pa.Table, most: int) -> pa.Table:
    if clips.num_rows <= most:
        return clips
    return clips.take(pa.array(np.arange(most) * clips.num_rows // most))


def choose_previews(clips: pa.Table, count: int) -> list[int]:
    """Choose the clips that get a preview.

    A third each: the least confident, the most confident, and clips of as many classes as possible, evenly spread.
    Failed clips get none.

    Args:
        clips: As `Store.clips`.
        count: How many, at most.

    Returns:
        Row numbers, no row twice.
    """
    usable = np.flatnonzero(clips.column("num_frames").to_numpy() > 0)
    confidence = _numbers(clips, "confidence")[usable]
    ranked = usable[np.argsort(np.where(np.isnan(confidence), 2, confidence), kind="stable")]
    if not np.isfinite(confidence).any():
        ranked = usable[:0]
    third = count // 3
    chosen = dict.fromkeys([*ranked[:third].tolist(), *ranked[::-1][:third].tolist()])
    for row in _by_class(clips, usable):
        if len(chosen) >= min(count, len(usable)):
            break
        chosen.setdefault(row)
    return list(chosen)


def _by_class(clips: pa.Table, usable: NDArray[np.int64]) -> Iterator[int]:
    """Yield rows so that classes come round one after the other, each spread over the data set."""
    names = _label_columns(clips)
    keys = clips.column(names[0]).to_pylist() if names else [None] * clips.num_rows
    members: dict[Any, list[int]] = {}
    for row in usable.tolist():
        members.setdefault(keys[row], []).append(row)
    spread = [[rows[(len(rows) // 2 + k * 7919) % len(rows)] for k in range(len(rows))] for rows in members.values()]
    for turn in range(max(map(len, spread), default=0)):
        yield from dict.fromkeys(rows[turn] for rows in spread if turn < len(rows))
    yield from usable.tolist()


def _label_columns(clips: pa.Table) -> list[str]:
    """Return the text columns that name classes, those of the action first."""
    first = ("verb", "noun", "label", "template", "verb_class", "noun_class", "split")
    names = [
        name
        for name in clips.column_names
        if name not in _STANDARD and pa.types.is_string(clips.schema.field(name).type)
        and 1 < pc.count_distinct(clips.column(name)).as_py() <= _MOST_CLASSES
    ]  # fmt: skip
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))[:3]


def _numbers(clips: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is null or where there is no such column."""
    if name not in clips.column_names:
        return np.full(clips.num_rows, np.nan)
    return np.asarray(clips.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _clip_boxes(clips: pa.Table) -> NDArray[np.float64]:
    """Return the clip boxes in shares of the frame, (N, 4), NaN where there is none."""
    corners = np.stack([_numbers(clips, side) for side in ("x1", "y1", "x2", "y2")], axis=1)
    width, height = _numbers(clips, "width"), _numbers(clips, "height")
    return corners / np.stack([width, height, width, height], axis=1)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _page_data(store: Store, clips: pa.Table, previews: dict[int, dict[str, str]]) -> str:
    """Return the gallery's data as JSON that is safe inside a script element."""
    boxes = _clip_boxes(clips)
    ratio = _numbers(clips, "width") / _numbers(clips, "height")
    states = clips.column("status").to_pylist()
    columns = {
        "confidence": _packed(_scaled(_numbers(clips, "confidence"), 10_000)),
        "area": _packed(_scaled(_areas(boxes), 10_000)),
        "frames": _packed(clips.column("num_frames").to_numpy().astype("<i4")),
        "status": _packed(np.array([STATUSES.index(state) for state in states], "u1")),
        "boxes": _packed(_scaled(boxes, 1_000)),
        "ratio": _packed(_scaled(ratio, 1_000)),
    }
    labels = []
    for k, name in enumerate(_label_columns(clips)):
        encoded = clips.column(name).combine_chunks().dictionary_encode()
        labels.append({"name": name, "values": encoded.dictionary.to_pylist()})
        codes = encoded.indices.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        columns[f"label{k}"] = _packed(_scaled(codes, 1))
    reasons = clips.column("reason").to_pylist()
    content = {
        "store": shlex.quote(str(store.path)),
        "ids": clips.column("clip_id").to_pylist(),
        "statuses": STATUSES,
        "reasons": {row: reason for row, reason in enumerate(reasons) if reason},
        "labels": labels,
        "columns": columns,
        "previews": previews,
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _scaled(values: NDArray[np.float64], scale: float) -> NDArray[np.uint16]:
    """Round values of 0 and more to 16 bits; what is not finite becomes the largest number."""
    known = np.isfinite(values)
    return np.where(known, np.clip(np.rint(np.where(known, values, 0) * scale), 0, 65534), 65535).astype("<u2")


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _preview(store: Store, clip_id: str, data_root: DataRoot | None) -> dict[str, str]:
    """Draw a short loop around a clip's strongest motion: boxes, areas and flow side by side."""
    clip = _excerpt(load_clip(store, clip_id, data_root=data_root))
    # The page shows hundreds of flows: the quick method will do for looking.
    clip = replace(clip, config=clip.config.model_copy(update={"flow": FlowConfig(method="dis")}))
    view = View([clip], panels=_PREVIEW_PANELS, height_px=_PREVIEW_HEIGHT_PX)
    step = max(1, round(len(view.frame_indices) / _PREVIEW_FRAMES))
    frames = [page for k, page in enumerate(panels_only(view)) if k % step == 0]
    video = io.BytesIO()
    encode_video(video, frames, _PREVIEW_FPS, container="webm", codec="libvpx-vp9", options=_VP9)
    return {
        "poster": _data_url("image/webp", encode_image(frames[len(frames) // 2], ".webp", quality=60)),
        "video": _data_url("video/webm", video.getvalue()),
    }


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _excerpt(clip: ClipBoxes) -> ClipBoxes:
    """Cut a clip down to the `_PREVIEW_SECONDS` with the strongest motion."""
    times = clip.times
    if times[-1] - times[0] <= _PREVIEW_SECONDS:
        return clip
    strength = np.ones(len(times)) if clip.maps is None else clip.maps.mean(axis=(1, 2), dtype=np.float64)
    total = np.concatenate([[0], strength.cumsum()])
    stops = np.searchsorted(times, times + _PREVIEW_SECONDS)
    starts = np.flatnonzero(times <= times[-1] - _PREVIEW_SECONDS)
    first = int(starts[np.argmax((total[stops] - total[:-1])[starts])])
    cut = slice(first, int(stops[first]))
    half = 0.5 * float(np.median(np.diff(times)))
    row = {**clip.row, "start_seconds": float(times[first]) - half, "stop_seconds": float(times[cut][-1]) + half}
    maps = None if clip.maps is None else clip.maps[cut]
    areas = None if clip.areas is None else clip.areas[cut]
    return replace(
        clip, row=row, times=times[cut], boxes=clip.boxes[cut], sources=clip.sources[cut], maps=maps, areas=areas
    )


def _tiles(store: Store, clips: pa.Table) -> str:
    counts = Counter(clips.column("status").to_pylist())
    seconds = np.nansum(_numbers(clips, "num_frames") / np.maximum(_numbers(clips, "fps"), 1e-9))
    entries = [(f"{clips.num_rows:,}", "clips", "")]
    entries += [(f"{counts[state]:,}", state.replace("_", " "), "bad" if state == "failed" and counts[state] else "")
                for state in STATUSES if counts[state] or state in ("ok", "failed")]  # fmt: skip
    missing = store.info["num_clips_planned"] - store.info["num_clips"]
    entries += [(f"{missing:,}", "not extracted yet", "bad")] if missing else []
    entries += [
        (f"{store.info['num_frame_rows']:,}", "frame boxes", ""),
        (format_seconds(float(seconds)), "of video", ""),
    ]
    speed = _throughput(store)
    entries += [(f"{speed:,.1f}", "frames/s per worker", "")] if speed else []
    return "".join(
        f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name, kind in entries
    )


def _throughput(store: Store) -> float | None:
    """Return frames per second of one worker, over all committed units; None where the commits do not say."""
    runs = [paths for paths in run_paths(store.path) if paths.root.name == store.run_id]
    records = [read_json(run.commit(unit)) for run in runs for unit, _ in store.info["units"]]
    own = [record for record in records if record.get("seconds") and "rows_of" not in record]
    known = [(record["num_frames"], record["seconds"]) for record in own]
    seconds = sum(spent for _, spent in known)
    return sum(frames for frames, _ in known) / seconds if seconds else None


def _charts(store: Store, clips: pa.Table) -> str:
    rows = np.flatnonzero(clips.column("num_frames").to_numpy() > 0)
    frame_boxes = [_frame_boxes(store, clips, row) for row in _evenly(rows, _FRAME_CLIPS)]
    boxes = np.concatenate(frame_boxes) if frame_boxes else np.zeros((0, 4))
    strengths = np.array(_strengths(store, clips, _evenly(rows, _MAP_CLIPS)))
    top = float(np.quantile(strengths, 0.99)) if strengths.size else 1.0
    confidence = _numbers(clips, "confidence")
    return "".join(
        [
            charts.histogram("Area of frame boxes", 100 * _areas(boxes), (0, 100), " %"),
            charts.histogram("Area of clip boxes", 100 * _areas(_clip_boxes(clips)), (0, 100), " %"),
            charts.heat_map("Where frame boxes lie", charts.box_coverage(boxes)),
            charts.histogram("Motion strength, mean of a clip's maps", strengths, (0, top)),
            charts.histogram("Confidence of clips", confidence, (0, 1)),
        ]
    )


def _evenly(rows: NDArray[np.int64], most: int) -> list[int]:
    picked: list[int] = rows[np.arange(min(most, len(rows))) * len(rows) // max(1, min(most, len(rows)))].tolist()
    return picked


def _frame_boxes(store: Store, clips: pa.Table, row: int) -> NDArray[np.float64]:
    """Return a clip's frame boxes in shares of the frame, (T, 4)."""
    width, height = clips.column("width")[row].as_py(), clips.column("height")[row].as_py()
    return np.asarray(store.frame_boxes(clips.column("clip_id")[row].as_py()) / np.array([width, height] * 2))


def _strengths(store: Store, clips: pa.Table, rows: Sequence[int]) -> list[float]:
    if not store.info["motion_maps"]:
        return []
    scale = store.config().store.map_full_scale
    means = []
    for row in rows:
        maps = store.motion_maps(clips.column("clip_id")[row].as_py())
        if maps.size:
            means.append(float(dequantise_map(maps, scale).mean()))
    return means


def _failures(clips: pa.Table) -> str:
    pairs = zip(clips.column("status").to_pylist(), clips.column("reason").to_pylist(), strict=True)
    counts = Counter((status, reason.split(":")[0]) for status, reason in pairs if status != "ok")
    if not counts:
        return '<p class="muted">None: every clip is ok.</p>'
    return charts.table([(f"{status}: {reason}", f"{count:,}") for (status, reason), count in counts.most_common(30)])


def _facts(store: Store) -> str:
    info, config = store.run_info(), store.config()
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.info["created_unix"]))
    rows = [("data set", str(info["dataset"])), ("data root", str(info["data_root"])), ("preset", config.preset)]
    rows += [("flow", config.flow.method), ("motion maps", "kept" if store.info["motion_maps"] else "not kept")]
    taken = store.info.get("rows_of", {}).items()
    rows += [("rows taken over", f"{count:,} units of run {run_id}") for run_id, count in taken]
    rows += [("snapshot made", made), ("content digest", str(store.info["content_digest"])[:16])]
    versions = charts.table([(name, str(version)) for name, version in info["versions"].items()])
    return f"{charts.table(rows)}<details><summary>Versions</summary>{versions}</details>"


def _note(clips: pa.Table, shown: pa.Table, num_previews: int) -> str:
    note = f"{num_previews:,} of them have a moving preview: hover to play, click to open."
    if shown.num_rows < clips.num_rows:
        note += f" The gallery shows {shown.num_rows:,} of the store's {clips.num_rows:,} clips, taken evenly."
    return escape(note)


def _fill(*, title: str, subtitle: str, note: str, **parts: str) -> str:
    """Put the parts into the page; `parts` are HTML already, the others are escaped here."""
    assets = files("motionbox.pictures.assets")
    values = {"title": escape(title), "subtitle": escape(subtitle), "note": note, **parts}
    values["style"] = assets.joinpath("report.css").read_text(encoding="utf-8")
    values["script"] = assets.joinpath("report.js").read_text(encoding="utf-8")
    pieces = assets.joinpath("report.html").read_text(encoding="utf-8").split("{{")
    page = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        page += [values[name], rest]
    return "".join(page)
