"""Crops that the device makes of decoded planes are those that a worker makes of RGB frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clips_support import DATA, MODEL, same
from mofo_train.data import loader
from mofo_train.data.crops.planes import (
    _compiled,
    _crops_of_planes,
    _resize,
    _split,
    crop_planes,
    crop_rgb,
    view_numbers,
)
from mofo_train.data.crops.uncut import (
    Uncut,
    crop_window,
    make_views,
    make_views_at_once,
    make_views_singly,
    plane_bytes,
    window_wh,
)
from mofo_train.data.dataset import FinetuneClips, PretrainClips, TrainingClips
from mofo_train.data.loader import Batch, collate, create_loader
from mofo_train.data.reader import ClipReader, ClipUnreadableError
from mofo_train.data.sampler import ResumableSampler, SampleKey
from mofo_train.data.transforms import Crop, crop_frames, multi_scale_crop
from mofo_train.data.views import FixedBatches, ViewedClips, create_view_loader
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig, ViewsConfig
from motionbox.store import open_store

av = pytest.importorskip("av")


def planes_and_rgb(width: int, height: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of noise, every code there is: planes (2, h * 3 / 2, w) and libswscale's RGB of them."""
    planes = np.random.default_rng(seed).integers(0, 256, (2, height * 3 // 2, width), np.uint8)
    pictures = [av.VideoFrame.from_ndarray(frame, format="yuv420p") for frame in planes]
    rgb = [picture.to_ndarray(format="rgb24", threads=1) for picture in pictures]
    return planes, np.stack(rgb)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(20, 70), height=st.integers(20, 70), out_px=st.sampled_from([16, 32, 48]))
def test_crops_of_planes_are_those_of_rgb_to_the_bit(data: st.DataObject, width: int, height: int, out_px: int) -> None:
    width, height = 2 * width, 2 * height
    planes, rgb = planes_and_rgb(width, height, seed=data.draw(st.integers(0, 9)))
    crops = []
    for _ in range(2):
        x, y = data.draw(st.integers(0, width - 16)), data.draw(st.integers(0, height - 16))
        crops.append(Crop(x, y, data.draw(st.integers(16, width - x)), data.draw(st.integers(16, height - y))))
    made = crop_planes(torch.from_numpy(planes)[None], [crops], out_px)
    for crop, own in zip(crops, made, strict=True):
        expected = crop_frames(torch.from_numpy(rgb), crop, out_px)
        assert torch.equal(own, expected)


def test_where_nothing_is_resized_they_are_equal() -> None:
    planes, rgb = planes_and_rgb(64, 48, seed=1)
    [made] = crop_planes(torch.from_numpy(planes)[None], [[Crop(10, 7, 32, 32)]], 32)
    assert torch.equal(made, crop_frames(torch.from_numpy(rgb), Crop(10, 7, 32, 32), 32))


MakeViews = Callable[[torch.Tensor, Sequence[Uncut]], torch.Tensor]
BOTH_WAYS = pytest.mark.parametrize("make", [make_views_singly, make_views_at_once])
WHO = ("worker", "auto", "device")
PRETRAIN: dict[str, Any] = {"seed": 0, "reads": "maps", "patch_px": 16}
FINETUNE = FinetuneConfig.model_validate(
    {
        "stage": "finetune",
        "task": {"columns": ("verb_class",), "num_classes": (9,)},
        "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 64},
        "data": {"dataset": "synthetic", "crops_per_clip": 2, "num_workers": 0},
        "augment": {"rand_ops": 6, "erase_probability": 0.6},
    }
)


@pytest.fixture
def reader(clips_store_path: Path) -> ClipReader:
    return ClipReader(open_store(clips_store_path), clips_store_path / "none", split=None, short_side_px=256)


@pytest.fixture
def both(reader: ClipReader) -> list[PretrainClips]:
    return [PretrainClips(reader, MODEL, DATA, on_device=on_device, **PRETRAIN) for on_device in (False, True)]


def batch_of(clips: TrainingClips, chosen: Sequence[int] = (0, 3, 5), make: MakeViews = make_views) -> Batch:
    """Return a batch with its views, made as a processor does or as a GPU does."""
    keys = [SampleKey(0, place, clip) for place, clip in enumerate(chosen)]
    with mock.patch.object(loader, "make_views", make):
        return collate(clips.__getitems__(keys)).to(torch.device("cpu"))


@BOTH_WAYS
def test_batches_are_the_same(both: list[PretrainClips], make: MakeViews) -> None:
    one, other = (batch_of(clips, make=make) for clips in both)
    assert one.frames.shape == (6, 3, 4, 64, 64)
    assert same(one, other)


def test_a_processor_makes_views_as_a_worker_does(both: list[PretrainClips]) -> None:
    """In the layout that a worker gives: what follows would be slower with another one."""
    one, other = map(batch_of, both)
    assert one.frames.stride() == other.frames.stride()


def one_crop(reader: ClipReader, *, on_device: bool) -> PretrainClips:
    data = DATA.model_copy(update={"crops_per_clip": 1})
    return PretrainClips(reader, MODEL, data, on_device=on_device, **PRETRAIN)


@BOTH_WAYS
def test_one_crop_of_a_window_is_that_of_the_whole_frame(reader: ClipReader, make: MakeViews) -> None:
    worker, device = (one_crop(reader, on_device=on_device) for on_device in (False, True))
    one, other = (batch_of(clips, range(12), make) for clips in (worker, device))
    assert one.frames.shape == (12, 3, 4, 64, 64)
    assert same(one, other)


def test_one_crop_takes_no_more_memory_than_the_short_side_asks_for(clips_store_path: Path, reader: ClipReader) -> None:
    sizes = [(width + width % 2, height + height % 2) for width, height in reader.stored_sizes()]
    most = max(width * height for width, height in sizes) * 3 // 2
    cut = max(min(size) * min(max(size), min(size) + 2) for size in sizes) * 3 // 2
    assert cut < most
    assert one_crop(reader, on_device=True).room_bytes == 4 * cut
    kept = ClipReader(open_store(clips_store_path), clips_store_path, split=None, short_side_px=256, cache_gib=1.0)
    assert one_crop(kept, on_device=True).room_bytes == 4 * most, "clips in memory are kept whole"


@given(st.integers(2, 90), st.integers(2, 90), st.integers(8, 64), st.integers(0, 2**32 - 1))
def test_a_window_holds_its_crop_and_is_of_one_size(width: int, height: int, out_px: int, seed: int) -> None:
    crop = multi_scale_crop(width, height, out_px, (1.0, 0.875, 0.75, 0.66), np.random.default_rng(seed))
    x, y, wide, high = window = crop_window(crop, (width, height))
    assert not any(number % 2 for number in window)
    assert 0 <= x <= crop.x
    assert crop.x + crop.width <= x + wide <= width + width % 2
    assert 0 <= y <= crop.y
    assert crop.y + crop.height <= y + high <= height + height % 2
    assert (wide, high) == window_wh((width, height))
    assert plane_bytes((wide, high)) == wide * high * 3 // 2


def test_a_clip_that_cannot_be_read_is_replaced_in_a_batch_as_it_is_alone(
    reader: ClipReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader.read_planes

    def read_planes(index: int, *arguments: Any) -> Any:
        if index == 3:
            raise ClipUnreadableError("clip three is torn")
        return read(index, *arguments)

    clips = one_crop(reader, on_device=True)
    monkeypatch.setattr(reader, "read_planes", read_planes)
    keys = [SampleKey(0, place, clip) for place, clip in enumerate((0, 3, 5))]
    memory = torch.zeros(3, clips.room_bytes, dtype=torch.uint8)
    together = list(clips.__getitems__(keys).read_into(memory))
    assert [sample.clip for sample in together] == [0, together[1].clip, 5]
    assert [sample.bad for sample in together] == [[], [(reader.clip_ids[3], "clip three is torn")], []]
    for key, sample in zip(keys, together, strict=True):
        alone = clips[key]
        assert (alone.clip, alone.bad, alone.uncut) == (sample.clip, sample.bad, sample.uncut)
        assert torch.equal(alone.boxes, sample.boxes)
        assert alone.uncut is not None
        used = int(np.prod(alone.uncut.shape))
        assert torch.equal(alone.frames[:used], sample.frames[:used])


@BOTH_WAYS
def test_finetuning_batches_are_the_same(reader: ClipReader, make: MakeViews) -> None:
    """Operations, crops, mirrors and the noise of the erasing."""
    one, other = (batch_of(FinetuneClips(reader, FINETUNE, on_device=on), range(8), make) for on in (False, True))
    assert one.frames.shape == (16, 3, 4, 64, 64)
    assert same(one, other)


@pytest.mark.parametrize("crops", [1, 3])
def test_test_views_are_the_same(reader: ClipReader, crops: int) -> None:
    views = ViewsConfig(segments=2, crops=crops)
    for clip in (0, 4):
        one, other = (
            ViewedClips(reader, FINETUNE.model, FINETUNE.data, views, on_device=on)[clip] for on in (False, True)
        )
        assert other.uncut is not None
        assert torch.equal(one.frames_on(torch.device("cpu")), other.frames_on(torch.device("cpu")))
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.areas, other.areas)


def test_the_clips_of_test_batches_are_begun_before_the_first_is_read(
    reader: ClipReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each clip just the frames of its views are asked for."""
    events: list[tuple[str, int, list[int]]] = []
    read = reader.read
    monkeypatch.setattr(
        reader,
        "read_ahead",
        lambda clips, **_keep: events.extend(("begin", clip, frames.tolist()) for clip, frames in clips),
    )
    monkeypatch.setattr(
        reader, "read", lambda clip, frames: events.append(("read", clip, frames.tolist())) or read(clip, frames)
    )
    clips = ViewedClips(reader, FINETUNE.model, FINETUNE.data, ViewsConfig(segments=2, crops=1))
    found = [
        clip.clip for batch in create_view_loader(clips, FixedBatches(len(clips), 3), num_workers=0) for clip in batch
    ]
    assert found == list(range(12))
    assert [what for what, *_ in events] == ["begin"] * 12 + ["read"] * 12
    assert [told for _, *told in events[:12]] == [told for _, *told in events[12:]]


def test_a_clip_is_read_straight_into_the_memory_of_its_batch(both: list[PretrainClips]) -> None:
    _, device = both
    memory = torch.zeros(2, device.room_bytes, dtype=torch.uint8)
    samples = device.__getitems__([SampleKey(0, 0, 0), SampleKey(0, 1, 1)]).read_into(memory)
    for sample, row in zip(samples, memory, strict=True):
        assert sample.frames.data_ptr() == row.data_ptr()
        assert row.any()


def test_a_worker_hands_on_planes(both: list[PretrainClips]) -> None:
    def first(num_workers: int) -> torch.Tensor:
        sampler = ResumableSampler(12, 4, seed=0, epochs=1)
        batch = next(iter(create_loader(both[1], sampler, num_workers=num_workers, pin=False)))
        assert len(batch.uncut) == 4
        return batch.to(torch.device("cpu")).frames

    assert torch.equal(first(0), first(1))


def test_clips_of_several_sizes_share_a_batch() -> None:
    memory, clips, expected = torch.zeros(3, 2 * 72 * 80, dtype=torch.uint8), [], []
    for row, (width, height) in enumerate(((64, 48), (80, 48), (64, 48))):
        planes, rgb = planes_and_rgb(width, height, row)
        crop = Crop(row, 2, 40, 40)
        memory[row, : planes.size] = torch.from_numpy(planes).flatten()
        clips.append(Uncut(planes.shape, (width, height), 32, crops=(crop,)))
        expected.append(crop_frames(torch.from_numpy(rgb), crop, 32))
    for make in (make_views_at_once, make_views_singly):
        assert torch.equal(make(memory, clips), torch.stack(expected))


def test_a_store_without_frames_or_with_larger_ones_is_refused(store_path: Path, clips_store_path: Path) -> None:
    for path, short_side_px, reason in ((store_path, 256, "keeps no frames"), (clips_store_path, 48, "are reduced")):
        reader = ClipReader(open_store(path), path, split=None, short_side_px=short_side_px)
        with pytest.raises(DataError, match=reason):
            reader.leaves_views_to("cpu", "device")
        assert not reader.leaves_views_to("cuda", "auto")


def test_a_gpu_makes_the_views_where_it_may_and_a_processor_where_it_must(reader: ClipReader) -> None:
    answers = {(device, who): reader.leaves_views_to(device, who) for device in ("cpu", "cuda") for who in WHO}
    left = [key for key, answer in answers.items() if answer]
    assert left == [("cpu", "device"), ("cuda", "auto"), ("cuda", "device")]


def test_clips_read_from_their_source_stay_with_the_worker(clips_store_path: Path) -> None:
    store = open_store(clips_store_path)
    reader = ClipReader(store, clips_store_path, split=None, short_side_px=256, from_source=True)
    assert not reader.leaves_views_to("cuda", "auto")


class Counter:
    """A backend of torch.compile that runs a function as it is and counts how often it is asked to."""

    def __init__(self) -> None:
        self.compilations = 0

    def __call__(self, module: torch.fx.GraphModule, _: Any) -> Any:
        self.compilations += 1
        return module.forward


@pytest.mark.parametrize("num_crops", [1, 2])
def test_other_widths_compile_nothing_again(num_crops: int) -> None:
    """Clips of every size, as many as there are, through one compiled function, to the pixels of the plain one."""
    counter = Counter()
    compiled = _compiled(_crops_of_planes, counter)
    generator = torch.Generator().manual_seed(0)
    for width, height, clips in ((40, 30, 3), (52, 30, 3), (46, 34, 2), (64, 32, 4)):
        planes = torch.randint(256, (clips, 2, height * 3 // 2, width), dtype=torch.uint8, generator=generator)
        crops = [[Crop(2 + place, 3, 20, 18 + place) for place in range(num_crops)] for _ in range(clips)]
        made = compiled(*_split(planes), *(part for taps in view_numbers(crops, 16, planes.device) for part in taps))
        assert torch.equal(made.flatten(0, 1).transpose(1, 2), crop_planes(planes, crops, 16))
    assert counter.compilations == 1


def test_other_widths_of_finetuning_compile_nothing_again() -> None:
    """A view at a time, as augmentation asks for them: sides of crops and frames differ."""
    counter = Counter()
    compiled = _compiled(_resize, counter)
    for width, height, side in ((40, 30, 20), (52, 30, 24), (47, 35, 31)):
        frames = torch.arange(2 * 3 * height * width).view(2, 3, height, width).to(torch.uint8)
        crop = Crop(1, 2, side, 17)
        made = compiled(frames[None], *(part for taps in view_numbers([[crop]], 16, frames.device) for part in taps))
        assert torch.equal(made[0, 0].transpose(0, 1), crop_rgb(frames, crop, 16))
    assert counter.compilations == 1


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no C compiler")

    double = _compiled(lambda tensor: tensor * 2, fails)
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert double(torch.tensor([2, 3])).tolist() == [4, 6]
    assert [record.getMessage().count("torch.compile fails here") for record in caplog.records] == [1]
