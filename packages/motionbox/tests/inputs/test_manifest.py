import math
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.inputs.manifest import load_manifest
from motionbox.inputs.missing_media import describe_missing, find_missing_media
from motionbox.inputs.schema import MAX_ID_CHARS, SCHEMA, build_table, merge_spans, validate_manifest


def table(**columns) -> pa.Table:
    num_rows = max(len(values) for values in columns.values())
    given_columns = {
        "clip_id": [f"c{i}" for i in range(num_rows)],
        "video_id": ["v"] * num_rows,
        "path": ["v.mp4"] * num_rows,
        **columns,
    }
    return build_table(given_columns)


def test_built_table_has_the_schema_and_null_for_the_rest():
    built = table(start_seconds=[0.0, None])
    assert built.schema == SCHEMA
    assert built["frame_fps"].null_count == 2
    validate_manifest(built)


BROKEN = [
    ({"clip_id": ["a", "b", "a"]}, "clip_id must be unique, got 'a'; clip 'a' (2 such)"),
    ({"clip_id": [""]}, "clip_id must not be empty, got ''"),
    ({"clip_id": [None]}, "clip_id must not be empty, got None"),
    ({"clip_id": ["x" * 10_000]}, f"clip_id must have at most {MAX_ID_CHARS} characters, got 'xxx"),
    ({"clip_id": ["a\nb"]}, "clip_id must not contain control characters, got 'a\\nb'"),
    ({"path": ["/etc/passwd"]}, "path must be relative to the data root, got '/etc/passwd'; clip 'c0'"),
    ({"path": ["C:\\video.mp4"]}, "path must be relative"),
    ({"path": ["a/../../b.mp4"]}, "path must stay below the data root"),
    ({"path": [".."]}, "path must stay below the data root"),
    ({"start_seconds": [3.0], "stop_seconds": [2.0]}, "start_seconds must be less than stop_seconds, got 3.0 and 2.0"),
    ({"start_seconds": [2.0], "stop_seconds": [2.0]}, "start_seconds must be less than stop_seconds"),
    ({"start_seconds": [-1.0]}, "start_seconds must be a finite number, 0 or more, got -1.0"),
    ({"stop_seconds": [math.nan]}, "stop_seconds must be a finite number"),
    ({"stop_seconds": [math.inf]}, "stop_seconds must be a finite number"),
    ({"start_frame": [5], "stop_frame": [4]}, "start_frame must be at most stop_frame, got 5 and 4"),
    ({"start_frame": [-5]}, "start_frame must be a finite number, 0 or more, got -5"),
    ({"frame_fps": [0.0]}, "frame_fps must be greater than 0, got 0.0"),
]


@pytest.mark.parametrize(("columns", "message"), BROKEN)
def test_broken_rule_is_named_with_its_clip(columns, message):
    with pytest.raises(InputError) as caught:
        validate_manifest(table(**columns))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_names_with_dots_are_fine_but_steps_upwards_are_not():
    validate_manifest(table(path=["a..b/...mp4", ".", "a/..b.mp4"], video_id=["u", "v", "w"]))
    with pytest.raises(InputError, match=r"a/\.\./b\.mp4"):
        validate_manifest(table(path=["a/../b.mp4"]))


def test_no_rows_and_wrong_types_are_refused():
    with pytest.raises(InputError, match="at least one clip"):
        validate_manifest(SCHEMA.empty_table())
    with pytest.raises(InputError, match="column start_frame must be int64"):
        validate_manifest(table(clip_id=["a"]).drop_columns(["start_frame"]))


names = st.one_of(
    st.text(max_size=12), st.sampled_from(["a", "../a", "/a", "a/..", "x" * 2000, "a\x00b", "."]), st.none()
)
seconds = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0, 2.0]))
frames = st.one_of(st.none(), st.integers(-3, 5))


@given(st.lists(st.tuples(names, names, seconds, seconds, frames, frames), min_size=1, max_size=6))
def test_validation_equals_the_rules_row_by_row(rows):
    """Oracle: the rules in plain Python."""
    ids, paths, starts, stops, firsts, lasts = map(list, zip(*rows, strict=True))
    built = table(
        clip_id=ids, path=paths, start_seconds=starts, stop_seconds=stops, start_frame=firsts, stop_frame=lasts
    )

    def name_ok(value):
        return bool(value) and len(value) <= MAX_ID_CHARS and not any(ord(c) < 32 or ord(c) == 127 for c in value)

    def path_ok(value):
        parts = value.replace("\\", "/").split("/")
        drive = len(value) > 2 and value[0].isascii() and value[0].isalpha() and value[1] == ":" and value[2] in "/\\"
        return ".." not in parts and value[0] not in "/\\" and not drive

    def number_ok(value):
        return value is None or (math.isfinite(value) and value >= 0)

    def order_ok(low, high, strict):
        return low is None or high is None or low < high or (low == high and not strict)

    valid = len(set(ids)) == len(ids) and all(
        name_ok(i) and name_ok(p) and path_ok(p) and all(map(number_ok, (a, b, f, g)))
        and order_ok(a, b, True) and order_ok(f, g, False)
        for i, p, a, b, f, g in rows
    )  # fmt: skip
    if valid:
        validate_manifest(built)
    else:
        with pytest.raises(InputError):
            validate_manifest(built)


def test_unknown_dataset(tmp_path):
    with pytest.raises(
        InputError, match="dataset must be one of epic100, ssv2, synthetic, metaworld, folder, got 'kinetics'"
    ):
        load_manifest("kinetics", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "source"),
    [
        ("epic100", "epic-kitchens-download-scripts"),
        ("ssv2", "something-something"),
        ("synthetic", "motionbox synth"),
        ("metaworld", "motionbox synth --metaworld"),
    ],
)
def test_a_missing_root_says_where_it_looked_and_how_to_get_the_data(tmp_path, dataset, source):
    with pytest.raises(InputError) as caught:
        load_manifest(dataset, tmp_path / "absent")
    assert str(tmp_path / "absent") in str(caught.value)
    assert source in str(caught.value)


def test_missing_media_are_counted_and_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.mp4").touch()
    built = table(path=["a/1.mp4", "a/2.mp4", "a/2.mp4", "b/3.mp4"])
    missing = find_missing_media(built, tmp_path)
    assert (missing.num_videos, missing.paths, missing.num_clips) == (3, ["a/2.mp4", "b/3.mp4"], 3)
    text = describe_missing(missing, "get them")
    assert text == "2 of 3 videos (3 clips) are missing: a/2.mp4, b/3.mp4; get them"


def test_load_manifest_requires_media_unless_told_otherwise(tmp_path):
    (tmp_path / "annotations.csv").write_text("path\na.mp4\n")
    with pytest.raises(InputError, match="1 of 1 videos"):
        load_manifest("folder", tmp_path)
    assert load_manifest("folder", tmp_path, require_media=False).num_rows == 1


def test_importing_and_reading_manifests_loads_no_decoder(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    code = (
        "import sys; from motionbox.inputs.manifest import load_manifest; load_manifest('folder', sys.argv[1]); "
        "heavy = {'cv2', 'av', 'ray', 'numba', 'torch', 'zarr'} & set(sys.modules); assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def spans(*rows, margin=0.0):
    videos, starts, stops = map(list, zip(*rows, strict=True))
    merged = merge_spans(table(video_id=videos, start_seconds=starts, stop_seconds=stops), margin)
    return [tuple(row[name] for name in ("video_id", "start_seconds", "stop_seconds")) for row in merged.to_pylist()]


def test_overlapping_spans_become_one_and_gaps_stay():
    assert spans(("b", 5, 6), ("a", 3, 4), ("b", 0, 2), ("b", 1, 3)) == [("b", 0, 3), ("b", 5, 6), ("a", 3, 4)]
    assert spans(("a", 1, 2), ("a", 3, 4), margin=0.5) == [("a", 0.5, 4.5)]
    assert spans(("a", 0.2, 2), margin=0.5) == [("a", 0, 2.5)]
    assert spans(("a", 3, 4), ("a", None, None), ("b", 2, None)) == [("a", None, None), ("b", 2, None)]
    assert spans(("a", 0, 1), ("a", None, 2), ("a", 5, 6), margin=1) == [("a", None, 3), ("a", 4, 7)]
    with pytest.raises(ValueError, match="margin_seconds must be at least 0"):
        spans(("a", 0, 1), margin=-1)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(0, 3),
)
def test_merged_spans_cover_exactly_the_widened_ones(rows, margin):
    merged = spans(*((video, start, start + length) for video, start, length in rows), margin=margin)
    for video in "ab":
        for second in range(45):
            middle = second + 0.5
            wanted = any(v == video and s - margin <= middle < s + n + margin for v, s, n in rows)
            assert sum(v == video and s <= middle < e for v, s, e in merged) == int(wanted)
