"""Which clips are learned from and which are for testing: splits, clips held out, folds of whole groups."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mofo_train.config import FoldsConfig, usual_split
from mofo_train.data.labels import (
    HEADS,
    have_boxes,
    labelled_column,
    name_column,
    name_of,
    num_labelled,
    predicted_columns,
    rows_of,
)
from mofo_train.errors import DataError

_VALIDATION_SHARE = 0.2  # of the videos, where nobody says which clips are for testing
_GROUP = "group "  # before the name of a group of the clip list, so that it is no video's
_NUM_NAMED = 8
_SPAN = ("path", "start_seconds", "stop_seconds", "start_frame", "stop_frame")


def splits_of(
    table: pa.Table, *, as_listed: bool = True, folds: FoldsConfig | None = None
) -> tuple[list[str | None], bool]:
    """Say which split each clip is of, under its usual name.

    `val`, `valid` and `dev` are `validation`, `training` is `train`, `testing` is `test`. Where the store names no
    split at all, or its names are not wanted, a fifth of the videos (whole videos, by a hash of their names) stands for
    `validation` and the others for `train`.

    Args:
        table: `Store.clips()`.
        as_listed: Take the store's names where there are any.
        folds: Deal the clips to folds instead, whatever the store says; those without a label, or that failed, are of
            no split.

    Returns:
        The split of each clip, None = of none; and whether these are the store's own.

    Raises:
        DataError: Splits have to be made, and all clips are of one video, or of fewer groups than folds.
    """
    if folds is not None:
        fold = deal_folds(groups_of(table), _strata_of(table), folds.number)
        return [None if own < 0 else "validation" if own == folds.held_out else "train" for own in fold.tolist()], False
    listed = [usual_split(name) if name else None for name in table.column("split").to_pylist()]
    if as_listed and any(listed):
        return listed, True
    held = hold_out(table.column("video_id").to_pylist(), _VALIDATION_SHARE, seed=0)
    return ["validation" if own else "train" for own in held], False


def hold_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose clips to hold out of training, whole groups at a time.

    Groups are taken in the order of a hash of their name and the seed until the next one would make the share larger
    than asked for; at least one group is taken, and at least one remains.

    Args:
        groups: The group of each of the N clips: its participant or video.
        share: Share of the clips wanted, in [0, 1); 0 holds nothing out.
        seed: Another seed holds others out.

    Returns:
        bool (N,), `True` = held out.

    Raises:
        DataError: All clips are of one group.
    """
    if share == 0:
        return np.zeros(len(groups), bool)
    names, places, counts = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(
            f"clips to hold out must be of at least two videos (or groups, see selection.by), got {len(names)}; "
            "set selection.share to 0, or name splits in the clip list"
        )
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    chosen = np.zeros(len(names), bool)
    num_clips = 0
    for group in sorted(range(len(names)), key=keys.__getitem__)[:-1]:
        if chosen.any() and num_clips + counts[group] > share * len(groups):
            continue
        chosen[group] = True
        num_clips += int(counts[group])
    return chosen[places]


def deal_folds(groups: Sequence[str], strata: Sequence[str | None], number: int) -> NDArray[np.int64]:
    """Deal clips to folds, whole groups at a time, so that every fold has about its share of each stratum.

    The largest groups come first, equal ones in the order of a hash of their names. Each goes where its strata are
    fewest so far, then where the fewest clips are.

    Args:
        groups: The group of each of the N clips.
        strata: Its label, or labels in one; None = it takes no part.
        number: Folds.

    Returns:
        int64 (N,), from 0; -1 for a clip that takes no part.

    Raises:
        DataError: There are fewer groups than folds.
    """
    names = sorted({name for name in strata if name is not None})
    counts: dict[str, NDArray[np.int64]] = {}
    for group, stratum in zip(groups, strata, strict=True):
        if stratum is not None:
            counts.setdefault(group, np.zeros(len(names), np.int64))[names.index(stratum)] += 1
    if len(counts) < number:
        raise DataError(
            f"folds must be at most the labelled videos (or groups, where the clip list has a column group), got "
            f"{number} folds and {len(counts)}"
        )
    totals = np.maximum(sum(counts.values(), np.zeros(len(names), np.int64)), 1)
    dealt = np.zeros((number, len(names)), np.int64)
    home = {}
    for group in sorted(counts, key=lambda name: (-counts[name].sum(), hashlib.sha256(name.encode()).digest())):
        crowding = ((2 * dealt + counts[group]) * counts[group] / totals).sum(1)  # by how much squares grow
        home[group] = min(range(number), key=lambda fold: (crowding[fold].round(9), dealt[fold].sum(), fold))
        dealt[home[group]] += counts[group]
    found = [-1 if own is None else home[group] for group, own in zip(groups, strata, strict=True)]
    return np.array(found, np.int64)


def groups_of(table: pa.Table) -> list[str]:
    """Return what each clip shares with others: the clip list's `group` where it says one, else the video.

    Folds never tear a group apart, and a table's intervals draw groups, not clips.

    Args:
        table: Rows of the store's clip table.
    """
    videos = [f"video {name}" for name in table.column("video_id").to_pylist()]
    if "group" not in table.column_names:
        return videos
    given = map(name_of, table.column("group").to_pylist())
    return [video if own is None else f"{_GROUP}{own}" for own, video in zip(given, videos, strict=True)]


def describe_folds(table: pa.Table, number: int | None) -> list[str]:
    """Say which clips a cross-validation learns from and tests, and what nobody could learn from them.

    Args:
        table: A clip list, or `Store.clips()`, which knows of clips that could not be read.
        number: Folds; None = the list's splits are taken.

    Returns:
        A line each: clips, classes, groups and folds; which clips take no part; which classes cannot be learned.

    Raises:
        DataError: There are fewer than two classes, or fewer groups than folds.
    """
    groups, labels, readable, titles = groups_of(table), _labels_of(table), _readable(table), _titles_of(table)
    own = [(group, label) for group, label, ok in zip(groups, labels, readable, strict=True) if label and ok]
    counts = Counter(label for _, label in own)
    if len(counts) < 2:
        found = ", ".join(map(repr, counts)) or "no labelled clip"
        raise DataError(f"clips must be of at least two classes to be told apart, got {found}")
    homes = {label: {group for group, other in own if other == label} for label in counts}
    has_groups = any(group.startswith(_GROUP) for group in groups)
    names = first_of([f"{titles[name]} {count}" for name, count in _ordered(counts)])
    kind = "groups" if has_groups else "videos"
    lines = [f"{len(own)} clips of {len(counts)} classes ({names}) in {len({group for group, _ in own})} {kind}"]
    if number is not None:
        folds = deal_folds([group for group, _ in own], [label for _, label in own], number)
        sizes = np.bincount(folds, minlength=number).tolist()
        lines[0] += f", {number} folds of {', '.join(map(str, sizes))} clips"
        lines += _unlearnable([titles[name] for name, _ in _ordered(counts) if len(homes[name]) == 1])
        if not has_groups:
            lines.append(
                "the clip list has no column group: clips of one recording or person may be learned from and "
                "tested; give them the same group"
            )
    return lines + _listed_twice(table, labels) + _taking_no_part(table, labels, readable)


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def first_of(names: Sequence[str]) -> str:
    """Name the first few, and say how many more there are."""
    return ", ".join(names[:_NUM_NAMED]) + (f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else "")


def _unlearnable(names: list[str]) -> list[str]:
    """Say which classes are never named rightly, because whenever one is tested, all of its clips are."""
    if not names:
        return []
    what = f"class {names[0]} has" if len(names) == 1 else f"classes {first_of(names)} have"
    return [
        f"{what} clips of one group alone: when they are tested, nothing has been learned of them, and they count as "
        "wrong in every row; leave them out, or add clips of other groups"
    ]


def _listed_twice(table: pa.Table, labels: list[str | None]) -> list[str]:
    """Say which clips have several rows: the same video from the same time to the same time."""
    rows: dict[tuple[object, ...], list[int]] = {}
    for place, span in enumerate(rows_of(table, *_SPAN)):
        rows.setdefault(span, []).append(place)
    twice = [places for places in rows.values() if len(places) > 1]
    if not twice:
        return []
    torn = sum(len({labels[place] for place in places}) > 1 for places in twice)
    names = first_of([str(table["path"][places[0]]) for places in twice])
    labelled = f", {torn} of them with different labels" if torn else ""
    return [f"{len(twice)} clips are listed more than once{labelled}: {names}; every row counts, remove some"]


def _taking_no_part(table: pa.Table, labels: list[str | None], readable: list[bool]) -> list[str]:
    """Say which clips are listed and neither learned from nor tested."""
    names = table.column("clip_id").to_pylist()
    without = [name for name, label in zip(names, labels, strict=True) if label is None]
    lines = [f"{len(without)} clips without label take no part: {first_of(without)}"] if without else []
    if not all(readable):
        reasons = table.column("reason").to_pylist()
        failed = [f"{name} ({why})" for name, why, ok in zip(names, reasons, readable, strict=True) if not ok]
        lines.append(f"{len(failed)} clips that cannot be read take no part: {first_of(failed)}")
    return lines


def _readable(table: pa.Table) -> list[bool]:
    """Return which clips can be used; all where the table is no store's."""
    return have_boxes(table) if "status" in table.column_names else [True] * len(table)


def _labels_of(table: pa.Table) -> list[str | None]:
    """Return the label of each clip, verb and noun in one; None where it, or one of them, is missing."""
    return _joined(table, _columns_of(table))


def _titles_of(table: pa.Table) -> dict[str, str]:
    """Return what to call each label: by names, where the clip list has names beside numbers."""
    columns = _columns_of(table)
    titles = _joined(table, [name_column(table, column) for column in columns])
    known = zip(_joined(table, columns), titles, strict=True)
    return {label: title or label for label, title in known if label is not None}


def _columns_of(table: pa.Table) -> list[str]:
    columns = predicted_columns(table) or tuple(name for name in HEADS if num_labelled(table, name))
    if not columns:
        raise DataError(f"clips must be labelled to be dealt to folds, got no column of {', '.join(HEADS)}")
    return [labelled_column(table, column) for column in columns]


def _joined(table: pa.Table, columns: Sequence[str]) -> list[str | None]:
    named = ([name_of(value) for value in row] for row in rows_of(table, *columns))
    return [None if None in row else " + ".join(map(str, row)) for row in named]


def classes_left_out(chosen: pa.Table, whole: pa.Table) -> str:
    """Say which classes a choice of clips never shows although it has room for all; empty where it shows them.

    Args:
        chosen: Rows of the store's clip table.
        whole: The rows that they were chosen from.
    """
    seen = set(_labels_of(chosen))
    known = {label for label in _labels_of(whole) if label is not None}
    lost = sorted(known - seen)
    if not lost or len(chosen) < len(known):
        return ""
    titles = _titles_of(whole)
    shown = f"{len(known) - len(lost)} of {len(known)} classes, not {first_of([titles[name] for name in lost])}"
    return f"{len(chosen)} of {len(whole)} clips show {shown}"


def _strata_of(table: pa.Table) -> list[str | None]:
    """Return the label of each clip that can be used; None for the others."""
    return [label if ok else None for label, ok in zip(_labels_of(table), have_boxes(table), strict=True)]
