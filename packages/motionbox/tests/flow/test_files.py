import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from motionbox.commands.flow import flow as command
from motionbox.errors import ClipError, InputError, Reason
from motionbox.flow import files as flow_files
from motionbox.flow.files import (
    JOURNAL,
    FlowFileOptions,
    quantise,
    read_flo,
    write_flo,
    write_flow_files,
)

DIS = FlowFileOptions(method="dis")
SHIFT = 2  # pixels to the right and downwards, per frame


@pytest.fixture(scope="module")
def shifting(tmp_path_factory) -> Path:
    """Six frames of texture that moves by (2, 2) pixels per frame."""
    folder = tmp_path_factory.mktemp("video") / "shifting"
    folder.mkdir()
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (140, 180), dtype=np.uint8), (0, 0), 4)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    for i in range(6):
        low = 30 - SHIFT * i
        cv2.imwrite(str(folder / f"frame_{i + 1}.png"), texture[low : low + 96, low : low + 128])
    return folder


def test_quantise_follows_denseflow():
    flow = np.array([[-25.0, -20.0, 0.0, 19.96, 20.0, 30.0, 1.0]], np.float32)
    assert quantise(flow, 20.0).tolist() == [[0, 0, 128, 255, 255, 255, 134]]


def test_flo_files_come_back_and_bad_ones_are_refused(tmp_path):
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)  # peer
    (tmp_path / "cut.flo").write_bytes((tmp_path / "a.flo").read_bytes()[:-1])
    (tmp_path / "other.flo").write_bytes(b"no flow at all")
    for name, message in (("cut.flo", "cut off"), ("other.flo", "something else")):
        with pytest.raises(InputError, match=message):
            read_flo(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (DIS, ["flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"]),
        (replace(DIS, format="png"), ["flow_x_{:05d}.png", "flow_y_{:05d}.png"]),
        (replace(DIS, layout="epic"), ["u/frame_{:010d}.jpg", "v/frame_{:010d}.jpg"]),
    ],
)
def test_images_have_the_names_and_values_of_their_layout(shifting, tmp_path, options, names):
    result = write_flow_files(shifting, tmp_path, options)
    assert (result.num_flows, result.num_new, result.error) == (5, 5, None)
    images = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*g"))
    assert images == sorted(name.format(i) for name in names for i in range(1, 6))
    for name in names:  # u and v are both positive: to the right and downwards
        image = cv2.imread(str(tmp_path / name.format(3)), cv2.IMREAD_GRAYSCALE)
        assert image.shape == (96, 128)
        assert np.median(image) == pytest.approx(127.5 + SHIFT * 255 / 40, abs=1.5)


@pytest.mark.parametrize(("step", "stride", "num_flows"), [(1, 1, 5), (2, 1, 4), (1, 2, 3), (3, 2, 2), (5, 1, 1)])
def test_step_and_stride_choose_the_pairs(shifting, tmp_path, step, stride, num_flows):
    options = replace(DIS, format="flo", step=step, stride=stride)
    assert write_flow_files(shifting, tmp_path, options).num_flows == num_flows
    flow = read_flo(tmp_path / f"flow_{num_flows:05d}.flo")
    assert np.median(flow, axis=(0, 1)) == pytest.approx([SHIFT * step] * 2, abs=0.5)


def test_zarr_holds_one_array(shifting, tmp_path):
    write_flow_files(shifting, tmp_path, replace(DIS, format="zarr"))
    array = zarr.open_group(tmp_path / "flow.zarr", mode="r")["flow"]
    assert array.shape == (5, 96, 128, 2)
    assert np.median(array[:], axis=(1, 2)) == pytest.approx(np.full((5, 2), SHIFT), abs=0.3)


@pytest.mark.parametrize("file_format", ["png", "zarr"])
def test_interrupted_run_goes_on_and_equals_an_uninterrupted_one(shifting, tmp_path, file_format, monkeypatch):
    options = replace(DIS, format=file_format)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_flow_files(shifting, whole, options)
    original = flow_files._write_pair

    def stop_after_two(sink, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        return original(sink, number, *rest)

    monkeypatch.setattr(flow_files, "_write_pair", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        write_flow_files(shifting, broken, options)
    monkeypatch.undo()
    assert not json.loads((broken / JOURNAL).read_text())["complete"]
    resumed = write_flow_files(shifting, broken, options)
    assert (resumed.num_flows, resumed.num_new) == (5, 3)
    assert write_flow_files(shifting, broken, options).num_new == 0

    def content(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert content(broken) == content(whole)


def test_other_options_in_the_same_folder_are_refused(shifting, tmp_path):
    write_flow_files(shifting, tmp_path, DIS)
    with pytest.raises(InputError, match="made with other options"):
        write_flow_files(shifting, tmp_path, replace(DIS, bound_px=10.0))
    (tmp_path / JOURNAL).write_text("[]")
    with pytest.raises(InputError, match="made with other options"):
        write_flow_files(shifting, tmp_path, DIS)


def test_broken_videos_are_reported_and_the_others_finish(shifting, tmp_path, caplog):
    half = tmp_path / "half"
    half.mkdir()
    for i in range(1, 4):
        (half / f"frame_{i}.png").write_bytes((shifting / f"frame_{i}.png").read_bytes())
    (half / "frame_4.png").write_bytes(b"broken")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "missing.mp4"), str(half), str(shifting), "-o", str(out), "--method", "dis"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 3
    assert "missing: " in caplog.text
    assert "frame_4.png" in caplog.text
    assert "2 of 3 videos failed or broke off" in caplog.text
    assert len(list((out / "half").glob("flow_x_*.jpg"))) == 2
    assert len(list((out / "shifting").glob("flow_x_*.jpg"))) == 5
    with pytest.raises(ClipError) as caught:
        write_flow_files(tmp_path / "missing.mp4", out / "missing", DIS)
    assert caught.value.reason == Reason.MISSING


def test_no_video_at_all_is_misuse(tmp_path):
    with pytest.raises(InputError, match=r"at least one video must exist, got nowhere\.mp4; check the paths"):
        command.main(["nowhere.mp4", "-o", str(tmp_path / "out")], standalone_mode=False)
    assert not (tmp_path / "out").exists()


def test_two_videos_of_one_name_are_refused(shifting, tmp_path):
    result = CliRunner().invoke(command, [str(shifting), str(shifting), "-o", str(tmp_path)])
    assert isinstance(result.exception, InputError)


def test_sign_and_scale_equal_the_official_epic_flow(testdata, tmp_path):
    """Official flow file n shows RGB files 2n - 2 to 2n + 1: step 3, stride 2, bound 20; u rightwards, v downwards."""
    frames = tmp_path / "frames"
    frames.mkdir()
    source = testdata / "epic100/mini_frames/P01"
    for number in range(20488, 20512):
        name = f"frame_{number:010d}.jpg"
        (frames / name).symlink_to(source / "rgb_frames/P01_06" / name)
    result = write_flow_files(frames, tmp_path / "flow", replace(DIS, layout="epic", step=3, stride=2))
    assert result.num_flows == 11
    scales, correlations = [], []
    for i in range(1, 12):
        for axis in ("u", "v"):
            ours = cv2.imread(str(tmp_path / f"flow/{axis}/frame_{i:010d}.jpg"), cv2.IMREAD_GRAYSCALE).ravel()
            official = source / f"flow_frames/P01_06/{axis}/frame_{10244 + i:010d}.jpg"
            theirs = cv2.imread(str(official), cv2.IMREAD_GRAYSCALE).ravel()
            correlations.append(np.corrcoef(ours, theirs)[0, 1])
            scales.append(ours.astype(float).std() / theirs.astype(float).std())
    assert np.mean(correlations) > 0.65
    assert min(correlations) > 0.3
    assert 0.7 < np.median(scales) < 1.4
