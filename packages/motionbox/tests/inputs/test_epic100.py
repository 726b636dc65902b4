import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from motionbox.commands.extract import extract
from motionbox.errors import InputError
from motionbox.inputs.epic100 import find_videos, official_rate
from motionbox.inputs.manifest import load_manifest
from motionbox.inputs.schema import notes_of
from motionbox.scoring.annotations import read_annotations
from motionbox.scoring.score_tables import score_store
from motionbox.store import Store, open_store
from motionbox.video import read_frames

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
ROWS = [
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]",
    'P01_101_0,P01,P01_101,,00:01:01.00,01:00:01.50,3050,180075,"take, cup",take,0,cup,13,"[\'a\', \'b\']","[1, 2]"',
]


def write_csv(
    root: Path, rows: list[str] = ROWS, *, header: str = HEADER, name="EPIC_100_train.csv", ending="\n"
) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(ending.join([header, *rows, ""]).encode())
    return root


def load(root: Path, **options):
    return load_manifest("epic100", root, require_media=False, **options)


def test_rows_become_clips(tmp_path):
    first, second = load(write_csv(tmp_path)).to_pylist()
    assert first["clip_id"] == "P01_01_0"
    assert first["path"] == "P01/videos/P01_01.MP4"
    assert (first["start_seconds"], first["stop_seconds"]) == (0.14, 3.37)
    assert (first["start_frame"], first["stop_frame"], first["split"]) == (8, 202, "train")
    assert first["frame_fps"] is None
    assert (first["verb_class"], first["noun_class"], first["narration"]) == (3, 3, "open door")
    assert (second["start_seconds"], second["stop_seconds"]) == (61.0, 3601.5)
    assert second["narration"] == "take, cup"
    assert second["action_id"] is None  # the validation file is not there: its pairs are not known
    assert second["unseen_participant"] is False
    assert second["tail_verb"] is None


def test_bom_crlf_and_another_column_order(tmp_path):
    plain = load(write_csv(tmp_path / "plain", ROWS[:1]))
    write_csv(tmp_path / "crlf", ROWS[:1], header="\ufeff" + HEADER, ending="\r\n")
    assert load(tmp_path / "crlf").equals(plain)
    order = [*range(14, -1, -1)]
    cells = ROWS[0].split(",")
    header = HEADER.split(",")
    write_csv(tmp_path / "order", [",".join(cells[i] for i in order)], header=",".join(header[i] for i in order))
    assert load(tmp_path / "order").equals(plain)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ",3,['door']",
            ",300,['door']",
            "noun_class must be a known class, 0 to 299, got '300' in line 2 ",
        ),
        ("open,3", "open,97", "verb_class must be a known class, 0 to 96, got '97'"),
        ("open,3", "open,", "verb_class must be a whole number, got ''"),
        ("00:00:00.14", "0.14", "start_timestamp must be a time like 00:01:02.34, got '0.14'"),
        (",8,202", ",800,202", "start_frame must be within 2 of start_timestamp times 60"),
        (",8,202", ",8,x", "stop_frame must be a whole number, got 'x'"),
        (
            "00:00:00.14,00:00:03.37,8,202",
            "00:00:03.37,00:00:00.14,202,8",
            "start_seconds must be less than stop_seconds",
        ),
        ("P01_01_0", "P01_101_0", "clip_id must be unique"),
    ],
)
def test_row_that_breaks_a_rule_is_named(tmp_path, old, new, message):
    write_csv(tmp_path, [ROWS[0].replace(old, new), ROWS[1]])
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_missing_files_and_columns(tmp_path):
    with pytest.raises(InputError, match=r"has none of EPIC_100_train.csv, .*epic-kitchens-100-annotations"):
        load(tmp_path)
    (tmp_path / "EPIC_100_train.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match=r"pickled files are never loaded; put its twin EPIC_100_train.csv beside it"):
        load(tmp_path)
    write_csv(tmp_path, ["P01_01_0,P01"], header="narration_id,participant_id")
    with pytest.raises(InputError, match=r"needs the columns video_id, start_timestamp, .*stop_frame, narration, verb"):
        load(tmp_path)


def test_clip_past_the_end_of_its_video_is_cut_and_flagged(tmp_path):
    write_csv(tmp_path / "annotations")
    (tmp_path / "annotations/EPIC_100_video_info.csv").write_text(
        "video_id,duration,fps,resolution\nP01_01,3.2,59.9,x\n"
    )
    first, second = load(tmp_path).to_pylist()
    assert (first["stop_seconds"], first["clamped"]) == (3.2, True)
    assert (second["stop_seconds"], second["clamped"]) == (3601.5, False)


def test_media_layouts(tmp_path):
    for name in ("P01/videos/P01_01.MP4", "P01/rgb_frames/P01_02.tar", "P01/rgb_frames/P01_03/frame_0000000001.jpg"):
        path = tmp_path / "EPIC-KITCHENS" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_videos(tmp_path, ["P01_01", "P01_02", "P01_03", "P02_01"]) == {
        "P01_01": ("EPIC-KITCHENS/P01/videos/P01_01.MP4", False),
        "P01_02": ("EPIC-KITCHENS/P01/rgb_frames/P01_02.tar", True),
        "P01_03": ("EPIC-KITCHENS/P01/rgb_frames/P01_03", True),
        "P02_01": ("EPIC-KITCHENS/P02/videos/P02_01.MP4", False),
    }
    assert find_videos(tmp_path / "EPIC-KITCHENS", ["P01_01"]) == {"P01_01": ("P01/videos/P01_01.MP4", False)}


def test_other_usual_layouts(tmp_path):
    """All videos in one folder, frames beside them, any container; a video goes before frames."""
    names = ("videos/P01_01.mp4", "P01/P01_02.mkv", "P01_03.MP4", "rgb_frames/P01_04/frame_0000000001.jpg",
             "frames/P01/P01_05/1.jpg", "P01/P01_06/1.jpg", "P01_07.tar", "rgb_frames/P01_01/1.jpg")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path, [f"P01_0{number}" for number in range(1, 9)]) == {
        "P01_01": ("videos/P01_01.mp4", False),
        "P01_02": ("P01/P01_02.mkv", False),
        "P01_03": ("P01_03.MP4", False),
        "P01_04": ("rgb_frames/P01_04", True),
        "P01_05": ("P01/videos/P01_05.MP4", False),  # deeper than any usual layout: said to be missing
        "P01_06": ("P01/P01_06", True),
        "P01_07": ("P01_07.tar", True),
        "P01_08": ("P01/videos/P01_08.MP4", False),
    }


def test_action_ids_number_the_official_pairs(tmp_path):
    """3,806 pairs over both files; in a part of them a rank would be another action's number."""
    pairs = [(verb, noun) for verb in range(97) for noun in range(300)][:: 97 * 300 // 3806][:3806]
    rows = [
        ROWS[0].replace("P01_01_0", f"P01_01_{i}").replace(",3,door,3", f",{verb},door,{noun}")
        for i, (verb, noun) in enumerate(pairs)
    ]
    write_csv(tmp_path, rows[::2])
    write_csv(tmp_path, rows[1::2], name="EPIC_100_validation.csv")
    table = load(tmp_path)
    by_clip = dict(zip(table["clip_id"].to_pylist(), table["action_id"].to_pylist(), strict=True))
    assert by_clip == {f"P01_01_{rank}": rank for rank in range(3806)}
    assert load(tmp_path, split="validation")["action_id"].to_pylist() == list(range(1, 3806, 2))
    assert notes_of(table) == []


def test_action_ids_of_a_part_are_left_out_and_that_is_said(tmp_path):
    write_csv(tmp_path)  # pairs (3, 3) and (0, 13)
    extra = ROWS[0].replace("P01_01_0", "P01_01_9").replace(",3,door,3", ",0,door,2")
    write_csv(tmp_path, [extra], name="EPIC_100_validation.csv")
    table = load(tmp_path)
    assert (table["action_id"].null_count, table["action_id"].type) == (3, "int64")
    [note] = notes_of(load(tmp_path, split="validation"))
    assert note.startswith("action_id is left out: it is a rank among the 3,806 pairs of verb and noun in train and")
    assert "the files here hold 3; put the whole EPIC_100_train.csv and EPIC_100_validation.csv there" in note


@pytest.fixture(scope="module")
def official(testdata, tmp_path_factory) -> Path:
    """The official annotation files under their official names (the training file holds part of its rows)."""
    root = tmp_path_factory.mktemp("epic") / "epic-kitchens-100-annotations"
    root.mkdir()
    for path in (testdata / "epic100").glob("*.csv"):
        shutil.copy(path, root / path.name.replace(".subset31007", ""))
    return root.parent


def test_official_files_load_whole(official):
    table = load(official)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["split"]).to_pylist()}
    assert counts == {"train": 31007, "validation": 9668, "test": 13092}
    labelled = table.filter(pc.not_equal(table["split"], "test"))
    pairs = set(zip(labelled["verb_class"].to_pylist(), labelled["noun_class"].to_pylist(), strict=True))
    assert len(pairs) == 2778
    assert labelled["action_id"].null_count == labelled.num_rows  # not all of the 3,806: no ranks among these
    test = table.filter(pc.equal(table["split"], "test"))
    assert all(test[name].null_count == 13092 for name in ("verb_class", "noun_class", "action_id", "narration"))
    assert pc.sum(table["clamped"]).as_py() == 1
    assert table.filter(table["clamped"])["clip_id"].to_pylist() == ["P29_05_563"]
    unseen = table.filter(pc.fill_null(table["unseen_participant"], False))
    assert set(unseen["participant_id"].to_pylist()) >= {"P18", "P32", "P33", "P34"}
    assert "train" not in unseen["split"].to_pylist()
    assert pc.sum(table["tail_verb"]).as_py() > 0


def test_every_official_validation_row_maps_to_frames_of_its_video(official, testdata):
    """By number within the counted frames, and by the measured rule from the timestamps."""
    import csv

    with (testdata / "epic100/EPIC_100_frame_counts.csv").open() as file:
        num_frames = {row["video_id"]: int(row["rgb_n_frames"]) for row in csv.DictReader(file)}
    table = load(official, split="validation")
    assert table.num_rows == 9668
    for row in table.to_pylist():
        assert 1 <= row["start_frame"] <= row["stop_frame"] <= num_frames[row["video_id"]]
        rate = 50 if len(row["video_id"].split("_")[1]) == 3 else 60
        assert row["start_frame"] == max(1, np.floor(row["start_seconds"] * rate))


def mini_root(official: Path, testdata: Path, folder: Path) -> Path:
    """The two segments that come as official RGB frames, in the official layout."""
    shutil.copy(testdata / "epic100/mini_frames/EPIC_100_mini.csv", folder / "EPIC_100_train.csv")
    (folder / "EPIC-KITCHENS").mkdir()
    (folder / "EPIC-KITCHENS/P01").symlink_to(testdata / "epic100/mini_frames/P01")
    return folder


def test_frame_folder_clips_read_exactly_their_numbers(official, testdata, tmp_path):
    root = mini_root(official, testdata, tmp_path)
    rows = load_manifest("epic100", root).to_pylist()
    assert [row["clip_id"] for row in rows] == ["P01_06_90", "P01_06_92"]
    for row in rows:
        assert row["frame_fps"] == 60
        frames = list(
            read_frames(
                root / row["path"],
                start_seconds=row["start_seconds"],
                stop_seconds=row["stop_seconds"],
                fps=row["frame_fps"],
                numbered=True,
            )
        )
        numbers = [round(frame.time_seconds * 60) for frame in frames]
        assert numbers == list(range(row["start_frame"], row["stop_frame"] + 1))


def test_frames_and_the_clips_mp4_show_the_same(official, testdata, tmp_path):
    """The clip of P01_06_90 beside the official frames: the same pictures up to their coding."""
    root = mini_root(official, testdata, tmp_path)
    row = load_manifest("epic100", root).to_pylist()[0]
    span = {"start_seconds": row["start_seconds"], "stop_seconds": row["stop_seconds"]}
    from_files = list(read_frames(root / row["path"], fps=60, numbered=True, **span))
    from_video = list(read_frames(testdata / "clips/epic_P01_06_90_456x256_60_h264.mp4"))
    assert len(from_files) == len(from_video) == 50

    def distance(position: int, other: int) -> float:
        return np.abs(from_files[position].grey.astype(int) - from_video[other].grey).mean()

    for position in range(3, 47):
        same = distance(position, position)
        assert same < 3.5
        assert same < min(distance(position, position - 3), distance(position, position + 3))


def extracted(root: Path, store: Path) -> Store:
    arguments = ["--dataset", "epic100", "--data-root", str(root), "--store", str(store), "--flow", "dis"]
    assert CliRunner().invoke(extract, [*arguments, "--executor", "serial"], standalone_mode=False).return_value == 0
    return open_store(store)


def test_boxes_from_frame_files_equal_those_from_an_mp4(official, testdata, tmp_path, write_video):
    """The same pictures, once as numbered files and once, without loss, as a video that is cut by timestamp."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "video/P01/videos").mkdir(parents=True)
    frames_root = mini_root(official, testdata, tmp_path / "frames")
    shutil.copy(frames_root / "EPIC_100_train.csv", tmp_path / "video")
    files = list(read_frames(frames_root / "EPIC-KITCHENS/P01/rgb_frames/P01_06", fps=60, numbered=True))
    pictures = np.stack([np.zeros_like(files[0].grey), *(frame.grey for frame in files)])
    numbers = [0, *(round(frame.time_seconds * 60) for frame in files)]
    path = tmp_path / "video/P01/videos/P01_06.MP4"
    write_video(path, pictures, fps=60, pts=numbers, pix_fmt="yuvj444p", options={"qp": "0", "preset": "ultrafast"})

    one, other = extracted(frames_root, tmp_path / "s1"), extracted(tmp_path / "video", tmp_path / "s2")
    # the second clip ends at 345.00 s: frame 20700, shown at that very moment, is in by number and out by time
    for clip_id, num_by_number, num_by_time in (("P01_06_90", 50, 50), ("P01_06_92", 58, 57)):
        boxes, times = one.frame_boxes(clip_id), one.frame_times(clip_id)
        assert (len(boxes), len(other.frame_boxes(clip_id))) == (num_by_number, num_by_time)
        assert np.allclose(times[:num_by_time], other.frame_times(clip_id), atol=1e-3)
        assert np.abs(boxes[:num_by_time].astype(int) - other.frame_boxes(clip_id)).max() <= 2


def test_official_rate_follows_the_videos_name():
    assert (official_rate("P01_01"), official_rate("P01_101")) == (60.0, 50.0)
    with pytest.raises(InputError, match="such as P01_01, got 'kitchen'"):
        official_rate("kitchen")


def test_boxes_annotated_by_frame_number_meet_the_stores_frames(official, testdata, tmp_path):
    """A store against its own boxes, written as VISOR writes polygons: exact, and not when the numbers are shifted."""
    store = extracted(mini_root(official, testdata, tmp_path), tmp_path / "store")
    sizes = {row["clip_id"]: (row["width"], row["height"]) for row in store.clips().to_pylist()}

    def scored(shift: int) -> list[float]:
        frames = []
        for clip_id, (width, height) in sizes.items():
            for time_seconds, box in zip(store.frame_times(clip_id), store.frame_boxes(clip_id).tolist(), strict=True):
                x1, y1, x2, y2 = np.array(box) * np.array([1920 / width, 1080 / height] * 2)
                hand = {"id": "a", "name": "left hand", "segments": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]}
                name = f"P01_06_frame_{round(time_seconds * 60) + shift:010d}.jpg"
                frames.append({"image": {"name": name, "video": "P01_06"}, "annotations": [hand]})
        path = tmp_path / "P01_06.json"
        path.write_text(json.dumps({"video_annotations": frames[::3]}))
        rows, missing = score_store(store, read_annotations(path))
        assert (missing, rows[-1].clip_ids) == (0, ["P01_06_90", "P01_06_92"])
        return [score.frame_iou for score in rows[-1].scores]

    assert min(scored(0)) > 0.999
    assert max(scored(2)) < 0.95


def test_label_columns_say_how_many_classes_the_data_set_has(tmp_path):
    write_csv(tmp_path)
    table = load(tmp_path, split="train")
    counts = {name: (table.schema.field(name).metadata or {}).get(b"num_classes") for name in table.column_names}
    known = {name: int(count) for name, count in counts.items() if count}
    assert known == {"verb_class": 97, "noun_class": 300, "action_id": 3806}
