"""A data set on disk against its data manifest (`data_manifests/<dataset>.toml`), before any work.

A data manifest says which annotation files belong to a data set, how many clips and videos it has, where users get
them and under which licence. Counts and checksums that differ are told, not refused: a part of a data set is fine, a
file that is edited may be. Missing videos are refused unless they are allowed to be missing.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.missing_media import MissingMedia, describe_missing, find_missing_media
from motionbox.inputs.tables import find_file

_NUM_NAMED = 5


class ManifestFile(BaseModel):
    """One annotation file of a data set.

    Attributes:
        name: File name.
        needed_for: What is missing without it.
        split: Split whose clips it lists, None for the others.
        num_clips: Clips that the official file lists.
        sha256: Checksum of the official file, None where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    needed_for: str
    split: str | None = None
    num_clips: int | None = None
    sha256: str | None = None


class DataManifest(BaseModel):
    """What belongs to a data set and where it comes from; the content of one TOML file.

    Attributes:
        name: The data set's name.
        licence: Terms of use in short.
        homepage: Where it is described.
        annotations_from: Where to get the annotation files.
        media_from: Where to get the videos.
        annotation_folders: Where below the data root annotation files may lie.
        num_clips: Annotated clips of the whole data set.
        num_videos: Videos of the whole data set.
        vocabulary: Label column -> number of classes.
        frame_rate: Rates at which the data set's own frame numbers count.
        media: Accepted layouts below the data root.
        files: Annotation files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    licence: str
    homepage: str
    annotations_from: str
    media_from: str
    annotation_folders: tuple[str, ...]
    num_clips: int | None = None
    num_videos: int | None = None
    vocabulary: dict[str, int] = {}
    frame_rate: dict[str, float] = {}
    media: dict[str, tuple[str, ...]] = {}
    files: tuple[ManifestFile, ...] = ()


@dataclass(frozen=True)
class DataReport:
    """What is there and what is missing.

    Attributes:
        lines: The report, for people.
        missing: Missing videos.
        missing_by_kind: Suffix (or `frame folder`) -> number of missing videos.
        remedy: Where to get what is missing.
    """

    lines: tuple[str, ...]
    missing: MissingMedia
    missing_by_kind: dict[str, int] = field(default_factory=dict)
    remedy: str = "check --data-root"

    def require(self, *, allow_missing: bool) -> None:
        """Refuse to go on where videos are missing, unless that is allowed.

        Raises:
            InputError: One line: how many are missing, the first ones, the remedy.
        """
        if not self.missing.paths or (allow_missing and len(self.missing.paths) < self.missing.num_videos):
            return
        goes_on = "" if allow_missing else ", or go on with what is there: --allow-missing"
        raise InputError(describe_missing(self.missing, f"{self.remedy}{goes_on}"))


def load_data_manifest(dataset: str) -> DataManifest | None:
    """Read a data set's data manifest; None for `folder`, which has none."""
    resource = files("motionbox") / "data_manifests" / f"{dataset}.toml"
    if not resource.is_file():
        return None
    content: dict[str, Any] = tomllib.loads(resource.read_text(encoding="utf-8"))
    return DataManifest.model_validate(content)


def check_data(dataset: str, data_root: DataRoot, table: pa.Table) -> DataReport:
    """Compare what is on disk with the data manifest and with the clips that will be worked on.

    Args:
        dataset: Name of the data set.
        data_root: Its folder.
        table: The manifest that `load_manifest(..., require_media=False)` gave, all splits or one.
    """
    manifest = load_data_manifest(dataset)
    lines = [f"{dataset} below {data_root}:"]
    remedy = "check --data-root"
    if manifest is not None:
        lines = [f"{manifest.name} below {data_root} ({manifest.licence}):"]
        lines.extend(_file_lines(manifest, data_root, table))
        remedy = f"get them from {manifest.media_from}"
    missing = find_missing_media(table, data_root)
    kinds = Counter(Path(path).suffix or "frame folder" for path in missing.paths)
    there = missing.num_videos - len(missing.paths)
    lines.append(f"  videos: {there:,} of {missing.num_videos:,} that the clips name are there")
    if missing.paths:
        by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        lines.append(f"  missing: {by_kind} ({missing.num_clips:,} of {table.num_rows:,} clips)")
        lines.extend(f"    {path}" for path in missing.paths[:_NUM_NAMED])
        if len(missing.paths) > _NUM_NAMED:
            lines.append(f"    and {len(missing.paths) - _NUM_NAMED:,} more")
        lines.append(f"  remedy: {remedy}")
        if manifest is not None:
            lines.append(f"  layouts: {'; '.join(manifest.media.get('layouts', ()))}")
    return DataReport(tuple(lines), missing, dict(kinds), remedy)


def _file_lines(manifest: DataManifest, data_root: DataRoot, table: pa.Table) -> list[str]:
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["split"]).to_pylist()}
    lines = []
    for file in manifest.files:
        path = find_file(data_root, manifest.annotation_folders, file.name, f"something-something-v2-{file.name}")
        if path is None:
            lines.append(f"  {file.name}: not there; needed for {file.needed_for} ({manifest.annotations_from})")
            continue
        notes = []
        num_clips = counts.get(file.split)
        if file.split is not None and num_clips is not None:
            whole = f" of {file.num_clips:,}" if file.num_clips not in (None, num_clips) else ""
            notes.append(f"{num_clips:,}{whole} clips")
        if file.sha256 is not None:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
            notes.append("the official file" if same else "differs from the official file")
        lines.append(f"  {file.name}: {', '.join(notes) or 'there'}")
    return lines
