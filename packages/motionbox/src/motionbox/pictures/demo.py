"""The pictures of the demo: what was extracted from the generated videos, drawn."""

from __future__ import annotations

from pathlib import Path

from motionbox.pictures.footage import View, load_clip
from motionbox.pictures.show import contact_sheet, play, still
from motionbox.scoring.box_metrics import read_boxes
from motionbox.store import Store
from motionbox.video.encode import write_file


def draw_pictures(store: Store, data_root: Path, out: Path, *, num_clips: int = 5) -> list[Path]:
    """Write an overlay video, a still of it and a contact sheet of clips with different verbs.

    Args:
        store: Boxes of the generated data set.
        data_root: The generated data set.
        out: Folder of the files.
        num_clips: Clips shown.

    Returns:
        The files written.
    """
    truths = read_boxes(data_root / "boxes.json")
    by_verb: dict[str, str] = {}
    for clip in store.clips().select(["clip_id", "verb", "status"]).to_pylist():
        if clip["status"] == "ok":
            by_verb.setdefault(clip["verb"], clip["clip_id"])
    views = [View([load_clip(store, clip)], truths[clip]) for clip in list(by_verb.values())[:num_clips]]
    if not views:
        return []
    files = [out / "overlay.mp4", out / "still.png", out / "contact_sheet.png"]
    fps = max(view.fps for view in views)
    write_file(files[0], play(views, fps), fps)
    write_file(files[1], iter([still(views[0])]), 1)
    write_file(files[2], iter([contact_sheet(views)]), 1)
    return files
