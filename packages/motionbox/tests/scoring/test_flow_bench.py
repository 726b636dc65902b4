from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.commands.bench import bench as command
from motionbox.errors import FlowError, InputError
from motionbox.scoring import flow_bench as bench
from motionbox.scoring.box_agreement import agreement_clips
from motionbox.scoring.known_flow import truth_pairs, warped_pair


def test_truth_of_a_warp_maps_one_frame_onto_the_other() -> None:
    pair = warped_pair("rotation", width=64, height=48, amount=2.0)
    grid_y, grid_x = np.mgrid[:48, :64]
    x, y = (grid_x + pair.flow[..., 0]).round().astype(int), (grid_y + pair.flow[..., 1]).round().astype(int)
    inside = (x >= 0) & (x < 64) & (y >= 0) & (y < 48)
    moved = pair.frame1[np.clip(y, 0, 47), np.clip(x, 0, 63)].astype(int)
    rest = np.abs(moved - pair.frame0)[inside].mean()
    assert rest < 0.6 * np.abs(pair.frame1.astype(int) - pair.frame0).mean()
    assert pair.endpoint_error(pair.flow) == 0
    assert pair.endpoint_error(pair.flow + np.float32([3, 4])) == pytest.approx(5)


def test_unknown_truth_does_not_count() -> None:
    pair = warped_pair("zoom", width=32, height=32)
    pair.flow[10:20] = np.nan
    assert pair.endpoint_error(np.nan_to_num(pair.flow)) == 0


def test_truth_pairs_of_the_test_data(testdata: Path) -> None:
    pairs = {pair.name: pair for pair in truth_pairs(testdata)}
    assert len(pairs) == 9 + 3
    chairs, motorcycle = pairs["FlyingChairs crop"], pairs["motorcycle 1/4"]
    assert chairs.flow.shape == (50, 50, 2)
    assert motorcycle.flow.shape == (*motorcycle.frame0.shape, 2)
    assert -15 < np.nanmin(motorcycle.flow[..., 0]) < np.nanmax(motorcycle.flow[..., 0]) < 0
    assert not np.nanmax(np.abs(motorcycle.flow[..., 1]))
    # The truth explains the second frame: warping it back leaves less than it differs unwarped.
    x = np.arange(motorcycle.flow.shape[1]) + np.nan_to_num(motorcycle.flow[..., 0])
    known = np.isfinite(motorcycle.flow[..., 0]) & (x >= 0)
    back = np.take_along_axis(motorcycle.frame1, np.clip(x.round().astype(int), 0, None), axis=1).astype(int)
    assert (
        np.abs(back - motorcycle.frame0)[known].mean()
        < np.abs(motorcycle.frame1.astype(int) - motorcycle.frame0)[known].mean()
    )


def test_replace_section_replaces_only_its_own() -> None:
    text = bench.replace_section("# Title\n\nwords\n", "flow", "one\n")
    assert text == "# Title\n\nwords\n\n<!-- bench flow: begin -->\none\n<!-- bench flow: end -->\n"
    text = bench.replace_section(text + "\nmore\n", "gpu", "other\n")
    again = bench.replace_section(text, "flow", "two\n")
    assert again == text.replace("one\n", "two\n")
    assert bench.replace_section(again, "flow", "two\n") == again


def test_table_says_what_was_measured() -> None:
    pair = warped_pair("translation", width=48, height=32)
    true, shift = pair.flow[0, 0], np.float32([0.3, 0.4])

    def flow_of(offset: float, spot_px: float = 0.0) -> bench.FlowFunction:
        """The true flow and an offset; in the clip, which is larger, one spot moves otherwise."""

        def flow(frame0: np.ndarray, _: np.ndarray) -> np.ndarray:
            result = np.tile(true + offset * shift, (*frame0.shape, 1)).astype(np.float32)
            result[100:150, 100:150] += np.float32(spot_px)
            return result

        return flow

    functions = {bench.DEFAULT: flow_of(0.1), "far": flow_of(2.0, spot_px=9.0), bench.REFERENCE: flow_of(0.0)}
    clips = agreement_clips(None, num_frames=3)[:1]
    subjects = bench.Subjects(functions, [("drawn", pair.frame0, pair.frame1)], [pair], clips)
    results = bench.measure(subjects, rounds=2)
    assert [len(result.milliseconds) for result in results] == [2, 2, 2]
    lines = bench.to_markdown(results, bench.measure_floor(pair.frame0, pair.frame1)).splitlines()
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    assert rows[bench.DEFAULT][-3:] == ["0.0500", "100.0%", "1.000 (1.000)"]
    assert rows["far"][-3:-1] == ["1.0000", "0.0%"]
    assert 0 < float(rows["far"][-1].split()[0]) < 0.9, "the box of the spot is not that of a clip without motion"
    assert rows[bench.REFERENCE][-1] == ""
    assert rows["translation x1"] == ["0.050", "1.000", "0.000"]


def test_missing_test_data_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--testdata", str(tmp_path / "none")], standalone_mode=False)
    assert isinstance(result.exception, InputError)
    assert "leave it out" in str(result.exception)


def test_drawn_frames_are_timed_without_test_data(tmp_path: Path) -> None:
    pairs = bench.timed_pairs(tmp_path)
    assert [frame0.shape for _, frame0, _ in pairs] == [(256, 456)] * 3
    assert all((frame0 != frame1).any() for _, frame0, frame1 in pairs)


def test_bench_of_the_gpu_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motionbox.flow._missing_for_cuda", lambda: "PyTorch finds no CUDA device")
    result = CliRunner().invoke(command, ["--backend", "cuda"], standalone_mode=False)
    assert isinstance(result.exception, FlowError)
    assert str(result.exception).startswith("backend cuda cannot run here: PyTorch finds no CUDA device")


def test_bench_of_the_gpu_measures_consecutive_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench_gpu = pytest.importorskip("motionbox.scoring.gpu_bench", reason="needs the extra gpu")
    measured = []

    def measure(frames: np.ndarray, repeats: int) -> list[object]:
        measured.append((frames.shape, frames.dtype, repeats))
        row = bench_gpu.GpuBenchRow
        return [row("frames to flow", 1234.5, "pairs/s"), row("kernel: warp", 2e9, "pixels/s", 0.5, 0.25)]

    monkeypatch.setattr("motionbox.flow._missing_for_cuda", lambda: None)
    monkeypatch.setattr(bench_gpu, "bench_gpu", measure)
    target = tmp_path / "docs" / "benchmarks.md"
    options = ["--backend", "cuda", "--rounds", "2", "--testdata", str(tmp_path), "--write", str(target)]
    result = CliRunner().invoke(command, options, standalone_mode=False)
    assert result.exception is None
    assert target.read_text().startswith("<!-- bench gpu: begin -->\ndrawn translation, 16 frames.")
    assert measured == [((16, 256, 456), np.uint8, 2)]
    assert "| frames to flow | 1,234 pairs/s |  |  |" in result.output
    assert "| kernel: warp | 2e+09 pixels/s | 50% | 25% |" in result.output


def test_the_footage_of_the_gpu_table(testdata: Path) -> None:
    _, frames = bench.consecutive_frames(testdata)
    assert frames.shape == (284, 256, 456)
    assert (frames[:142] == frames[142:, ::-1, ::-1]).all()
