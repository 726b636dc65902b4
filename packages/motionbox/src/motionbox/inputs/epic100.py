"""EPIC-KITCHENS-100: the official annotation CSVs and any of the official media layouts.

Frame numbers are the data set's own: `max(1, floor(t * N))` with N = 60 for videos named `PXX_YY` and N = 50 for
`PXX_1YY`, whatever the video's native rate (59.94 for most of the former). So clips of MP4s are cut by timestamp, and
clips of frame folders and tars by frame number, both ends included: file number n has time n / N there, and the
manifest's `start_seconds` and `stop_seconds` select exactly the files `start_frame` to `stop_frame`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.media import TAR_SUFFIXES, VIDEO_SUFFIXES, Names, names_below
from motionbox.inputs.schema import build_table
from motionbox.inputs.tables import find_file, read_csv_text, read_optional_csv, refuse_row, require_columns

SPLIT_FILES = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",
}
"""The annotation file of each split; the test split has no labels."""

ANNOTATION_FOLDERS = (".", "annotations", "epic-kitchens-100-annotations")
"""Where below the data root the annotation files may lie."""

NUM_VERBS, NUM_NOUNS, NUM_ACTIONS = 97, 300, 3806
_MEDIA_FOLDERS = ("", "EPIC-KITCHENS/")
_FRAME_FOLDERS = ("rgb_frames/", "frames/", "rawframes/", "")
_SPAN_COLUMNS = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "start_frame")
_LABEL_COLUMNS = ("narration", "verb", "verb_class", "noun", "noun_class")
_MAX_FRAME_DISAGREEMENT = 2
_FIFTY_FPS_IDS = "^P[0-9]+_[0-9]{3}$"


def load_epic100(root: DataRoot) -> pa.Table:
    """Read every split whose annotation file is there into one manifest.

    Label columns: `narration`, `verb`, `verb_class` (0 to 96), `noun`, `noun_class` (0 to 299), `action_id`,
    `participant_id`, `unseen_participant`, `tail_verb`, `tail_noun`, and `clamped`: the annotated end lay behind the
    video's. `action_id` numbers the (verb_class, noun_class) pairs of train and validation in ascending order, 3,806
    of them; it is null, and a note says so, where the files hold other than these. The flags are null where their CSV
    is not there; labels of the test split are null.

    Raises:
        InputError: No annotation file, a missing column, an unknown class, or times and frame numbers that disagree.
    """
    found = {split: find_file(root, ANNOTATION_FOLDERS, name) for split, name in SPLIT_FILES.items()}
    parts = [_read_split(path, split) for split, path in found.items() if path is not None]
    if not parts:
        raise InputError(
            f"{root} has none of {', '.join(SPLIT_FILES.values())} (nor in {' or '.join(ANNOTATION_FOLDERS[1:])}); get "
            "them from https://github.com/epic-kitchens/epic-kitchens-100-annotations"
        )
    table = pa.concat_tables(parts)
    table = _clamp(table, root)
    actions, notes = _action_ids(table)
    labels = {
        **{name: table[name] for name in (*_LABEL_COLUMNS, "participant_id")},
        "action_id": actions,
        "unseen_participant": _unseen(table, root),
        "tail_verb": _tail(table, root, "verb"),
        "tail_noun": _tail(table, root, "noun"),
        "clamped": table["clamped"],
    }
    return build_table(_locate(table, root), labels, notes)


def official_rate(video_id: str) -> float:
    """Return the rate that a video's frame numbers count with: 60, or 50 for `PXX_1YY`.

    Raises:
        InputError: It is not the name of a video of EPIC-KITCHENS-100.
    """
    if re.fullmatch("P[0-9]+_[0-9]{2,3}", video_id) is None:
        raise InputError(f"video_id must be a video of EPIC-KITCHENS-100 such as P01_01, got {video_id!r}")
    return 50.0 if re.fullmatch(_FIFTY_FPS_IDS, video_id) else 60.0


def _read_split(path: DataRoot, split: str) -> pa.Table:
    raw = read_csv_text(path)
    labelled = split != "test"
    require_columns(raw, (*_SPAN_COLUMNS, "stop_frame", *(_LABEL_COLUMNS if labelled else ())), path)
    columns = {name: raw[name] for name in ("narration_id", "participant_id", "video_id")}
    columns |= {f"{end}_seconds": _seconds(raw, f"{end}_timestamp", path) for end in ("start", "stop")}
    columns |= {f"{end}_frame": _whole_numbers(raw, f"{end}_frame", path) for end in ("start", "stop")}
    columns["rate"] = pc.if_else(pc.match_substring_regex(raw["video_id"], _FIFTY_FPS_IDS), 50.0, 60.0)
    for end in ("start", "stop"):
        expected = pc.max_element_wise(1, pc.floor(pc.multiply(columns[f"{end}_seconds"], columns["rate"])))
        off = pc.greater(pc.abs(pc.subtract(expected, columns[f"{end}_frame"])), _MAX_FRAME_DISAGREEMENT)
        rule = f"be within {_MAX_FRAME_DISAGREEMENT} of {end}_timestamp times 60 (50 for PXX_1YY)"
        refuse_row(raw, off, f"{end}_frame", rule, path, id_column="narration_id")
    nulls = {"verb_class": pa.int64(), "noun_class": pa.int64()}
    for name in _LABEL_COLUMNS:
        kind = nulls.get(name, pa.string())
        if not labelled:
            columns[name] = pa.nulls(raw.num_rows, kind)
        else:
            columns[name] = _classes(raw, name, path) if name in nulls else raw[name]
    return pa.table({**columns, "split": pa.array([split] * raw.num_rows, pa.string())})


def _seconds(raw: pa.Table, name: str, path: DataRoot) -> pa.ChunkedArray:
    """Parse `HH:MM:SS.ff`."""
    parts = pc.extract_regex(raw[name], r"^(?P<h>[0-9]{1,3}):(?P<m>[0-9]{1,2}):(?P<s>[0-9]{1,2}(?:\.[0-9]+)?)$")
    refuse_row(raw, pc.is_null(parts), name, "be a time like 00:01:02.34", path, id_column="narration_id")
    hours, minutes, seconds = (pc.struct_field(parts, part).cast(pa.float64()) for part in "hms")
    return pc.add(pc.add(pc.multiply(hours, 3600.0), pc.multiply(minutes, 60.0)), seconds)


def _whole_numbers(raw: pa.Table, name: str, path: DataRoot) -> pa.ChunkedArray:
    bad = pc.invert(pc.match_substring_regex(raw[name], "^[0-9]{1,12}$"))
    refuse_row(raw, bad, name, "be a whole number", path, id_column="narration_id")
    return raw[name].cast(pa.int64())


def _classes(raw: pa.Table, name: str, path: DataRoot) -> pa.ChunkedArray:
    num_classes = NUM_VERBS if name == "verb_class" else NUM_NOUNS
    values = _whole_numbers(raw, name, path)
    rule = f"be a known class, 0 to {num_classes - 1}"
    refuse_row(raw, pc.greater_equal(values, num_classes), name, rule, path, id_column="narration_id")
    return values


def _clamp(table: pa.Table, root: DataRoot) -> pa.Table:
    """Cut clips at the end of their video, by `EPIC_100_video_info.csv` and `EPIC_100_frame_counts.csv` if there."""
    clamped = pa.chunked_array([pa.repeat(pa.scalar(False), table.num_rows)])
    for column, name, value_column, kind in (
        ("stop_seconds", "EPIC_100_video_info.csv", "duration", pa.float64()),
        ("stop_frame", "EPIC_100_frame_counts.csv", "rgb_n_frames", pa.int64()),
    ):
        info = read_optional_csv(root, ANNOTATION_FOLDERS, name, ("video_id", value_column))
        if info is None:
            continue
        rows = pc.index_in(table["video_id"], value_set=info["video_id"])
        ends = pc.take(info[value_column].cast(kind), rows)
        late = pc.fill_null(pc.greater(table[column], ends), False)
        table = table.set_column(
            table.column_names.index(column), column, pc.if_else(late, ends, table[column]).cast(kind)
        )
        clamped = pc.or_(clamped, late)
    return table.append_column("clamped", clamped)


def _action_ids(table: pa.Table) -> tuple[pa.Array | pa.ChunkedArray, list[str]]:
    """Number the pairs of verb and noun; null, and a note, where these are not all of the data set's."""
    pairs = pc.add(pc.multiply(table["verb_class"], NUM_NOUNS), table["noun_class"])
    known = pc.drop_null(pc.unique(pairs))
    if len(known) != NUM_ACTIONS:
        note = (
            f"action_id is left out: it is a rank among the {NUM_ACTIONS:,} pairs of verb and noun in train and "
            f"validation, and the files here hold {len(known):,}; put the whole {SPLIT_FILES['train']} and "
            f"{SPLIT_FILES['validation']} there and choose clips with --split, --limit or --allow-missing"
        )
        return pa.nulls(table.num_rows, pa.int64()), [note] if len(known) else []
    known = known.take(pc.sort_indices(known))
    return pc.index_in(pairs, value_set=known, skip_nulls=True).cast(pa.int64()), []


def _unseen(table: pa.Table, root: DataRoot) -> pa.Array | pa.ChunkedArray:
    flags: pa.Array | pa.ChunkedArray = pa.nulls(table.num_rows, pa.bool_())
    for split in ("validation", "test"):
        name = f"EPIC_100_unseen_participant_ids_{split}.csv"
        unseen = read_optional_csv(root, ANNOTATION_FOLDERS, name, ("participant_id",))
        if unseen is not None:
            is_unseen = pc.is_in(table["participant_id"], value_set=unseen["participant_id"])
            flags = pc.if_else(pc.equal(table["split"], split), is_unseen, flags)
    return pc.if_else(pc.equal(table["split"], "train"), False, flags)


def _tail(table: pa.Table, root: DataRoot, kind: str) -> pa.Array | pa.ChunkedArray:
    tail = read_optional_csv(root, ANNOTATION_FOLDERS, f"EPIC_100_tail_{kind}s.csv", (kind,))
    if tail is None:
        return pa.nulls(table.num_rows, pa.bool_())
    classes = table[f"{kind}_class"]
    flags = pc.is_in(classes, value_set=tail[kind].cast(pa.int64()))
    return pc.if_else(pc.is_null(classes), pa.scalar(None, pa.bool_()), flags)


def _locate(table: pa.Table, root: DataRoot) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Find each video's media and express its clips in that medium's time."""
    videos = pc.unique(table["video_id"]).to_pylist()
    media = find_videos(root, videos)
    rows = pc.index_in(table["video_id"], value_set=pa.array(videos, pa.string()))
    paths = pc.take(pa.array([media[video][0] for video in videos], pa.string()), rows)
    is_frames = pc.take(pa.array([media[video][1] for video in videos], pa.bool_()), rows)
    rate = table["rate"]
    first = pc.divide(table["start_frame"].cast(pa.float64()), rate)
    behind = pc.divide(pc.add(table["stop_frame"], 1).cast(pa.float64()), rate)
    return {
        "clip_id": table["narration_id"],
        "video_id": table["video_id"],
        "path": paths,
        "start_seconds": pc.if_else(is_frames, first, table["start_seconds"]),
        "stop_seconds": pc.if_else(is_frames, behind, table["stop_seconds"]),
        "start_frame": table["start_frame"],
        "stop_frame": table["stop_frame"],
        "split": table["split"],
        "frame_fps": pc.if_else(is_frames, rate, pa.scalar(None, pa.float64())),
    }


def find_videos(root: DataRoot, videos: list[str]) -> dict[str, tuple[str, bool]]:
    """Return for each video its path below the root, and whether that holds frames.

    A video file is looked for before a folder or tar of frames; each in the official folder of its participant
    (`P01/videos`, `P01/rgb_frames`), in the participant's own, and in one for all (`videos`, `rgb_frames`, the root),
    all of them below the root or below its `EPIC-KITCHENS`. A video that is nowhere gets the official path.
    """
    prefix = next((folder for folder in reversed(_MEDIA_FOLDERS) if (root / folder).is_dir()), "")
    listed: dict[str, Names] = {}

    def find(folders: Iterable[str], video: str, suffixes: Sequence[str]) -> str | None:
        for folder in folders:
            if folder not in listed:
                listed[folder] = names_below(root, folder or ".")
            for suffix in suffixes:
                name = listed[folder].get(video + suffix)
                if name is not None:
                    return f"{folder}{name}"
        return None

    media: dict[str, tuple[str, bool]] = {}
    for video in videos:
        participant = video.partition("_")[0]
        places = [(base, f"{base}{participant}/") for base in _MEDIA_FOLDERS]
        files = [f"{place}{kind}" for kind in ("videos/", "") for base, own in places for place in (own, base)]
        frames = [f"{place}{kind}" for kind in _FRAME_FOLDERS for base, own in places for place in (own, base)]
        path = find(files, video, VIDEO_SUFFIXES)
        in_frames = None if path is not None else find(frames, video, ("", *TAR_SUFFIXES))
        media[video] = (path or in_frames or f"{prefix}{participant}/videos/{video}.MP4", in_frames is not None)
    return media
