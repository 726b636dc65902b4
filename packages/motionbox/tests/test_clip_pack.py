import cv2
import numpy as np
import pytest

from motionbox.clip_pack import INDEX_SCHEMA, ClipPack, encode_unit_clips
from motionbox.clips import clip_from_video
from motionbox.errors import ClipError, Reason, StoreError
from motionbox.manifest import build_table
from motionbox.video import read_colour_frames


@pytest.fixture(scope="module")
def unit(tmp_path_factory, write_video):
    """A video of 24 frames with two overlapping clips, a broken video and a folder of numbered frames."""
    root = tmp_path_factory.mktemp("unit")
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (48, 200), dtype=np.uint8), (0, 0), 3)
    frames = np.stack([texture[:, 3 * i : 3 * i + 64] for i in range(24)])
    write_video(root / "a.mkv", frames, fps=12, codec="ffv1", pix_fmt="gray")
    (root / "broken.mp4").write_bytes(b"broken")
    (root / "v").mkdir()
    for i in range(6):
        cv2.imwrite(str(root / f"v/frame_{i + 10:05d}.png"), frames[i])
    clips = build_table(
        {
            "clip_id": ["a_0", "broken", "a_1", "v"],
            "video_id": ["a", "broken", "a", "v"],
            "path": ["a.mkv", "broken.mp4", "a.mkv", "v"],
            "start_seconds": [0.0, None, 0.5, 12 / 60],
            "stop_seconds": [1.0, None, 2.0, 15 / 60],
            "frame_fps": [None, None, None, 60.0],
        }
    )
    seen = []
    packed = encode_unit_clips(clips, root, on_clip=seen.append)
    assert seen == ["a_0", "broken", "a_1", "v"]
    (root / "clips.bin").write_bytes(packed.data)
    return root, packed


def test_index_says_what_each_clip_is(unit):
    _, packed = unit
    assert packed.index.schema == INDEX_SCHEMA
    rows = {row["clip_id"]: row for row in packed.index.to_pylist()}
    assert {name: row["num_frames"] for name, row in rows.items()} == {"a_0": 12, "broken": 0, "a_1": 18, "v": 3}
    assert {name: row["reason"] for name, row in rows.items() if row["reason"]} == {"broken": "not_a_video"}
    assert "broken.mp4" in rows["broken"]["message"]
    assert sum(row["num_bytes"] for row in rows.values()) == len(packed.data)


def test_frames_of_the_pack_are_those_of_the_video(unit):
    root, packed = unit
    with ClipPack(root / "clips.bin", packed.index) as pack:
        source = [f for f in read_colour_frames(root / "a.mkv") if 0.5 <= f.time_seconds < 2.0]
        index = pack.index("a_1")
        assert index.times_seconds.tolist() == [frame.time_seconds for frame in source]
        read = pack.read_frames("a_1", [17, 0, 5], crop_xywh=(3, 1, 40, 32))
        for image, position in zip(read, (17, 0, 5), strict=True):
            truth = source[position].rgb[1:33, 3:43].astype(float)
            assert np.abs(image - truth).mean() < 4
            assert np.abs(image - truth).mean() < np.abs(image - source[(position + 2) % 18].rgb[1:33, 3:43]).mean()
        numbered = pack.index("v")
        assert numbered.times_seconds.tolist() == [n / 60 for n in (12, 13, 14)]


def test_blocks_equal_those_of_single_clips(unit):
    root, packed = unit
    block, _ = clip_from_video(root / "a.mkv", start_seconds=0.0, stop_seconds=1.0)
    row = packed.index.to_pylist()[0]
    assert packed.data[row["offset"] : row["offset"] + row["num_bytes"]] == block


def test_unknown_and_empty_clips_are_refused(unit):
    root, packed = unit
    with ClipPack(root / "clips.bin", packed.index) as pack:
        assert "a_0" in pack
        assert "broken" not in pack
        for clip_id in ("broken", "other"):
            with pytest.raises(StoreError, match="clip_id must be a clip with frames"):
                pack.read_frames(clip_id, [0])


def test_cut_or_damaged_files_are_noticed(unit, tmp_path):
    _, packed = unit
    (tmp_path / "cut.bin").write_bytes(packed.data[:-1])
    with pytest.raises(StoreError, match="must have"):
        ClipPack(tmp_path / "cut.bin", packed.index)
    with pytest.raises(StoreError, match="cannot be read"):
        ClipPack(tmp_path / "none.bin", packed.index)
    (tmp_path / "bad.bin").write_bytes(bytes(len(packed.data)))
    with ClipPack(tmp_path / "bad.bin", packed.index) as pack, pytest.raises(ClipError) as caught:
        pack.read_frames("a_0", [0])
    assert caught.value.reason == Reason.NOT_A_VIDEO


def test_unit_without_clips(tmp_path):
    packed = encode_unit_clips(build_table({"clip_id": [], "video_id": [], "path": []}), tmp_path)
    (tmp_path / "clips.bin").write_bytes(packed.data)
    with ClipPack(tmp_path / "clips.bin", packed.index) as pack:
        assert "a" not in pack
