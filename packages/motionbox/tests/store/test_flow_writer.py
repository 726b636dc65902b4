import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motionbox.config import load_config
from motionbox.errors import StoreError
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.progress import create_reporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.extraction.work_unit import process_unit
from motionbox.store import Store, open_store
from motionbox.store.care.verify import verify_store
from motionbox.store.flow_form import FlowCoder, dequantise_flow, quantise_flow
from motionbox.store.units import units_of
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.commit import read_commit, verify_files
from motionbox.store.writing.flow_writer import FlowWriter
from motionbox.store.writing.runs import Run
from store_support import SIDE, DifferenceFlow, NumberSource, make_run, number_executor, number_videos, small_config

FLOWS = hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-50, 50, width=32))


@given(FLOWS, st.sampled_from([1.0, 20.0, 64.0]))
def test_eight_bits_are_off_by_at_most_their_bound_over_254(flow, bound_px) -> None:
    stored = quantise_flow(flow, "uint8", bound_px)
    assert (stored.dtype, stored.shape) == (np.uint8, (2, 3, 4))
    back = dequantise_flow(stored, "uint8", bound_px)
    assert np.abs(back - np.clip(flow, -bound_px, bound_px)).max() <= bound_px / 254 * 1.0001
    assert (back[flow == 0] == 0).all()


@given(FLOWS)
def test_float16_keeps_eleven_bits(flow) -> None:
    back = dequantise_flow(quantise_flow(flow, "float16", 20.0), "float16", 20.0)
    assert np.abs(back - flow).max(initial=0) <= np.abs(flow).max() * 2**-11 + 1e-7
    assert back.shape == flow.shape


@pytest.mark.parametrize("form", ["float16", "uint8"])
def test_zarr_reads_what_was_written_piece_by_piece(tmp_path: Path, form) -> None:
    """Several sizes, some flows without any motion; every array is one shard, its index at the end."""
    random = np.random.default_rng(0)
    flows = [random.normal(0, 4, (20, 24 if n % 3 else 32, 2)).astype(np.float32) for n in range(11)]
    flows[4][:] = 0
    flows[10][:] = 0
    coder, writer = FlowCoder(form, 20.0), FlowWriter(tmp_path / "attempt", form)
    for first, stop in ((0, 1), (1, 1), (1, 6), (6, 11)):
        writer.add(first, [coder.code(flow) for flow in flows[first:stop]])
    files = writer.finish()
    assert sorted(files) == [
        "flow.zarr/20x24/c/0/0/0/0",
        "flow.zarr/20x24/zarr.json",
        "flow.zarr/20x32/c/0/0/0/0",
        "flow.zarr/20x32/zarr.json",
        "flow.zarr/zarr.json",
    ]
    verify_files(tmp_path / "attempt", files)
    group = zarr.open_group(tmp_path / "attempt/flow.zarr", mode="r")
    for number, flow in enumerate(flows):
        array = group[f"20x{flow.shape[1]}"]
        assert (array[number] == quantise_flow(flow, form, 20.0)).all()
    assert (np.asarray(group["20x32"][1]) == (0 if form == "float16" else 128)).all()  # of the other size: no chunk
    assert dict(array.metadata.to_dict())["codecs"][0]["name"] == "sharding_indexed"


def test_digest_is_of_the_values_and_sees_each() -> None:
    flow = np.random.default_rng(0).normal(0, 4, (20, 24, 2)).astype(np.float32)
    other = flow.copy()
    other[3, 5, 1] += 0.5
    digests = [FlowCoder("float16", 20.0).code(f).digest for f in (flow, flow.copy(), other)]
    assert digests[0] == digests[1] != digests[2]


def test_memory_does_not_grow_with_the_number_of_flows(tmp_path: Path) -> None:
    coder, writer = FlowCoder("float16", 20.0), FlowWriter(tmp_path / "attempt", "float16")
    flow = np.random.default_rng(0).normal(0, 4, (128, 128, 2)).astype(np.float32)
    writer.add(0, [coder.code(flow)])
    tracemalloc.start()
    for number in range(1, 200):
        writer.add(number, [coder.code(flow)])
    files = writer.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert files["flow.zarr/128x128/c/0/0/0/0"]["bytes"] > 200 * 30_000
    assert peak < 1 << 20


VIDEOS = {"a": "60@25", "b": "1@25", "c": "40@20!15", "d": "error not_a_video", "e": "250@25"}


def build(tmp_path: Path, form: str, *, max_frames: int = 100, **overrides: object) -> Run:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    # the text videos say twice the size that their frames have, as a large video that is shrunk
    config = small_config(**{"store.flow": form, "frames.short_side_px": SIDE, **overrides})
    return make_run(tmp_path / "store", tmp_path / "videos", manifest, config=config, max_frames=max_frames)


def extract(run: Run) -> Store:
    drive(run, number_executor(), EngineOptions(), create_reporter())
    make_snapshot(run)
    return open_store(run.paths.root.parents[1])


def expected(name: str) -> np.ndarray:
    """The flow of every frame of a text video; the last frame takes that of the frame before."""
    path = Path(f"{name}.num")
    count, _, rest = VIDEOS[name].partition("@")
    fps, _, breaks = rest.partition("!")
    frames = NumberSource()._frames(path.stem, int(breaks or count), float(fps), None, None, "")
    greys = [frame.grey for frame in frames]
    flows = [DifferenceFlow()(a, b) for a, b in itertools.pairwise(greys)]
    return np.stack([*flows, flows[-1]])


@pytest.mark.parametrize(("form", "tolerance"), [("float16", 0.002), ("uint8", 20 / 254 + 1e-4)])
@pytest.mark.parametrize("maps", [True, False])
def test_store_gives_each_frame_its_flow(tmp_path: Path, form, tolerance, maps) -> None:
    store = extract(build(tmp_path, form, **{"store.motion_maps": maps}))
    for name in ("a", "c", "e"):
        flow = store.flow(name)
        assert (flow.dtype, len(flow)) == (np.float32, len(store.frame_times(name)))
        assert np.abs(flow - expected(name)).max() <= tolerance
    assert (store.flow("b") == np.zeros((1, 48, 48, 2))).all()
    assert len(store.flow("d")) == 0
    assert (store.flow("e", [249, 7, 7, 130]) == store.flow("e")[[249, 7, 7, 130]]).all()
    with pytest.raises(ValueError, match="frame_indices must be some of 0 to 59"):
        store.flow("a", [60])
    assert [check.problem for check in verify_store(store.path)] == [None] * len(list(verify_store(store.path)))


def test_verify_finds_a_changed_byte_of_flow(tmp_path: Path) -> None:
    run = build(tmp_path, "uint8")
    extract(run)
    (shard, *_) = run.paths.attempts.rglob("flow.zarr/48x48/c/0/0/0/0")
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    problems = [check.problem for check in verify_store(tmp_path / "store") if check.problem]
    assert len(problems) == 1
    assert "flow.zarr/48x48/c/0/0/0/0 is damaged" in problems[0]


def test_content_digest_covers_the_flow_and_not_the_split(tmp_path: Path) -> None:
    digests = {}
    for name, form, max_frames in (
        ("a", "uint8", 100),
        ("b", "uint8", 4096),
        ("c", "float16", 100),
        ("d", "none", 100),
    ):
        digests[name] = extract(build(tmp_path / name, form, max_frames=max_frames)).info["content_digest"]
    assert digests["a"] == digests["b"]
    assert len(set(digests.values())) == 3


def test_store_without_flow_says_how_to_get_it(tmp_path: Path) -> None:
    store = extract(build(tmp_path, "none"))
    with pytest.raises(StoreError, match=r"keeps no flow .*--save flow"):
        store.flow("a")


def test_a_void_attempt_leaves_no_flow_behind(tmp_path: Path) -> None:
    run = build(tmp_path, "float16")
    flow, calls = DifferenceFlow(), []

    def breaks(*arguments: object, **options: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 150:
            raise RuntimeError("planted")
        return flow(*arguments, **options)

    breaks.name = "breaks"
    drive(run, number_executor(flow=breaks), EngineOptions(), create_reporter())
    attempts = {path.name for path in run.paths.attempts.glob("*/*")}
    committed = {read_commit(run.paths, unit)["attempt"] for unit in run.paths.committed_units()}
    assert len(calls) > 150
    assert attempts == committed


def test_the_loser_of_two_attempts_removes_its_flow(tmp_path: Path) -> None:
    run = build(tmp_path, "float16")
    (unit, *_) = units_of(run.plan())
    attempts = [Attempt(run.paths, unit.unit_id, run.config.store) for _ in range(2)]
    for attempt in attempts:
        with attempt:
            for rows in process_unit(unit, run.config, run.data_root, NumberSource(), DifferenceFlow()):
                attempt.add(rows)
            assert attempt.commit() == (attempt is attempts[0])
    assert [path.name for path in (run.paths.attempts / unit.unit_id).iterdir()] == [attempts[0].attempt_id]


def test_flow_is_part_of_the_fingerprint_as_far_as_it_shapes_the_store() -> None:
    def digest(**store: object) -> str:
        return load_config(overrides={f"store.{key}": value for key, value in store.items()}).digest()

    assert digest() == digest(flow="none", flow_bound_px=5.0)
    assert digest(flow="float16") == digest(flow="float16", flow_bound_px=5.0)
    assert len({digest(), digest(flow="float16"), digest(flow="uint8"), digest(flow="uint8", flow_bound_px=5.0)}) == 4
    assert "flow" in json.loads(load_config().model_dump_json())["store"]
