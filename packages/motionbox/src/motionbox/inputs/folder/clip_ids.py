"""Names for clips and videos made from their paths: short where that is enough, and never one name for two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from motionbox.inputs.media import TAR_SUFFIXES, VIDEO_SUFFIXES
from motionbox.storage.reading import is_url


def stem_of(path: str) -> str:
    """Return a path without the extension of a video or an archive: `clip.001` is a folder's whole name.

    Of a URL, the path in its bucket counts.
    """
    if is_url(path):
        path = path.split("/", 3)[-1]
    suffix = next((suffix for suffix in (*VIDEO_SUFFIXES, *TAR_SUFFIXES) if path.lower().endswith(suffix)), "")
    stem = path[: len(path) - len(suffix)]
    return stem if stem and not stem.endswith("/") else path


def video_ids(paths: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return path -> id: the path without extension, with it where two paths would share that.

    Args:
        paths: Any number of times each.
        taken: Ids that stand for other files.
    """
    ids = {path: stem_of(path) for path in paths}
    counts = Counter(taken)
    while True:
        shared = Counter(ids.values()) + counts
        longer = {path: path if shared[video_id] > 1 else video_id for path, video_id in ids.items()}
        if longer == ids:
            break
        ids = longer
    used = set(taken)
    for path, video_id in ids.items():
        ids[path] = unused(video_id, used)
        used.add(ids[path])
    return ids


def clip_ids(videos: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Return an id for each clip: its video's, numbered `_0`, `_1`, ... where a video has several.

    Args:
        videos: The id of each clip's video.
        taken: Ids that other clips have.
    """
    totals = Counter(videos)
    seen: Counter[str] = Counter()
    ids = []
    used = {*taken, *(video for video, count in totals.items() if count == 1)}
    for video in videos:
        if totals[video] == 1:
            ids.append(video if video not in taken else unused(video, used))
        else:
            ids.append(unused(f"{video}_{seen[video]}", used))
        used.add(ids[-1])
        seen[video] += 1
    return ids


def unused(name: str, used: Collection[str]) -> str:
    """Return a name, with as many `~` behind it as make it one that is not used."""
    while name in used:
        name += "~"
    return name
