import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.cli import main
from motionbox.commands import show as show_command
from motionbox.motion import boxes as bx
from motionbox.pictures import draw, footage, show
from motionbox.pictures.footage import Footage, View, load_clip
from motionbox.scoring.box_metrics import AnnotatedClip, read_boxes
from motionbox.store import open_store
from motionbox.synthetic import SyntheticConfig, write_dataset
from motionbox.video.encode import write_file

SERIAL = ["--executor", "serial", "--flow", "dis", "--preset", "paper"]


def extract(dataset, root, store, *more):
    with pytest.raises(SystemExit) as stop:
        main(["extract", "--dataset", dataset, "--data-root", str(root), "--store", str(store), *SERIAL, *more])
    return stop.value.code


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("show") / "videos"
    write_dataset(root, SyntheticConfig(num_clips=2, seed=3))
    return root


@pytest.fixture(scope="module")
def store_path(data):
    path = data.parent / "store"
    assert extract("synthetic", data, path) == 0
    return path


@pytest.fixture(scope="module")
def mapless_path(data):
    path = data.parent / "mapless"
    assert extract("synthetic", data, path, "--set", "store.motion_maps=false", "--preset", "release") == 0
    return path


@pytest.fixture
def clip(store_path):
    with open_store(store_path) as store:
        return load_clip(store, "videos/00000")


@pytest.fixture
def words(monkeypatch):
    """Everything that is written into pictures."""
    written = []
    real = draw.text

    def spy(picture, text, *args, **kwargs):
        written.append(text)
        real(picture, text, *args, **kwargs)

    monkeypatch.setattr(draw, "text", spy)
    return written


def test_a_page_per_frame_with_the_boxes_where_the_store_says(clip):
    view = View([clip], height_px=288)
    pages = list(show.render(view))
    assert len(pages) == len(clip.times)
    width, height = view.panel_wh
    scale = width / clip.row["width"]
    for index in (3, len(pages) - 1):
        assert pages[index].shape == (*show.page_size(view)[::-1], 3)
        panel = pages[index][40 : 40 + height, 10 : 10 + width]
        expected = (clip.boxes[index] * scale).round().astype(int)
        colour = show._BOX_COLOURS[bx.BoxSource(int(clip.sources[index]))]
        rows, columns = np.nonzero((panel == colour).all(axis=2))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(found - expected).max() <= 1


def test_the_heat_lies_where_the_area_is():
    """Known answer: one cell of a grid whose last row is cut in the middle."""
    areas = np.zeros((4, 6), np.uint8)
    areas[3, 4] = 255
    picture = np.full((70, 120, 3), 100, np.uint8)
    layer = draw.heat_layer(picture, areas, (6.0, 3.5))
    assert layer.shape == picture.shape
    warmth = layer[..., 0].astype(int) - layer[..., 2]
    rows, columns = np.nonzero(warmth > 0.8 * warmth.max())
    assert 80 <= columns.min() < columns.max() < 100
    assert 60 <= rows.min() < rows.max() < 70
    assert (layer[:40] == 70).all()  # grey and darker where nothing is inside
    assert (draw.heat_layer(picture, areas * 0, (6.0, 3.5)) == 70).all()


def test_areas_are_shown_with_their_boxes(clip, words):
    page = show.still(View([clip], panels=["areas"], height_px=288))
    assert "motion areas" in words
    panel = page[40 : 40 + 288]
    assert (panel[..., 0].astype(int) - panel[..., 2] > 60).mean() > 0.01
    assert (panel == draw.FRAME_BOX).all(axis=2).any() or (panel == draw.BORROWED_BOX).all(axis=2).any()


def test_a_sheet_of_many_clips_shows_areas_where_the_store_has_them(clip, mapless_path, words):
    with open_store(mapless_path) as store:
        without = load_clip(store, "videos/00000")
    assert show._strip_panel(View([clip])) == "areas"
    assert show._strip_panel(View([without])) == show._strip_panel(View([clip, without])) == "boxes"
    show.still(View([without], panels=["areas"]))
    assert {"no motion areas", "this store keeps none"} <= set(words)


def test_flow_is_in_pixels_of_the_video(tmp_path):
    """Known answer: noise that moves 6 px right and 3 px down per frame in a video larger than the working size."""
    rng = np.random.default_rng(0)
    import cv2

    table = cv2.GaussianBlur(rng.uniform(0, 255, (600, 800)).astype(np.float32), (0, 0), 3)
    table = ((table - table.min()) / np.ptp(table) * 255).astype(np.uint8)
    frames = [np.repeat(table[60 - 3 * k : 540 - 3 * k, 100 - 6 * k : 740 - 6 * k, None], 3, axis=2) for k in range(6)]
    (tmp_path / "videos").mkdir()
    write_file(tmp_path / "videos" / "moving.mp4", frames, 10)
    assert extract("folder", tmp_path / "videos", tmp_path / "store") == 0
    with open_store(tmp_path / "store") as store:
        view = View([load_clip(store, "moving")])
    flow = [flow for _, _, flow in Footage(view).moments()]
    np.testing.assert_allclose(np.median(flow[2], axis=(0, 1)), (6, 3), atol=0.3)
    assert Footage(view).max_px == 10.0
    np.testing.assert_array_equal(flow[-1], flow[-2], "the last frame takes the last flow")


def test_the_iou_is_written_and_the_truth_drawn(clip, data, words):
    truth = read_boxes(data / "boxes.json")["videos/00000"]
    page = show.still(View([clip], truth, ["boxes"]), at_seconds=0.0)
    assert f"IoU {float(bx.iou(clip.boxes[0], truth.boxes[0])):.2f}" in words
    assert (page == draw.TRUTH_BOX).all(axis=2).sum() > 100


def test_frames_without_annotation_have_no_truth(clip):
    partly = AnnotatedClip("videos/00000", np.array([2, 4]), np.array([[-1, -1, -1, -1], [5, 5, 50, 50.0]]))
    view = View([clip], partly)
    truths = [show._truth_at(view, index) for index in range(5)]
    assert [truth is None for truth in truths] == [True, True, True, False, True]


def test_annotations_of_another_rate_are_matched_by_time(clip):
    """Boxes annotated at half the clip's rate: number n is the clip's frame 2 (n - 1)."""
    boxes = np.array([[k, k, k + 10, k + 10] for k in range(1, 6)], float)
    view = View([clip], AnnotatedClip("videos/00000", np.arange(1, 6), boxes), truth_fps=clip.row["fps"] / 2)
    assert [show._truth_at(view, 2 * k)[0] for k in range(5)] == [1, 2, 3, 4, 5]
    assert show._truth_at(view, 12) is None


def test_a_lost_video_is_said_in_its_place(clip, tmp_path, words):
    from dataclasses import replace

    lost = replace(clip, video=tmp_path / "gone.mp4")
    pages = list(show.render(View([lost], height_px=120)))
    assert len(pages) == len(clip.times)
    assert "video not found" in words
    assert "gone.mp4" in words
    assert (pages[0] == show._BOX_COLOURS[bx.BoxSource(int(clip.sources[0]))]).all(axis=2).any(), (
        "boxes are still drawn"
    )


def test_a_video_that_breaks_off_shows_what_came_before(clip, tmp_path, words):
    from dataclasses import replace

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    assert len(list(show.render(View([replace(clip, video=broken)], height_px=120)))) == len(clip.times)
    assert "not_a_video" in words


def test_a_store_without_maps_says_so(mapless_path, words):
    with open_store(mapless_path) as store:
        show.still(View([load_clip(store, "videos/00001")], height_px=120))
    assert "no motion maps" in words


def test_a_single_frame_has_boxes_but_no_flow_and_no_map(tmp_path, words):
    (tmp_path / "videos").mkdir()
    write_file(tmp_path / "videos" / "single.mp4", [np.full((64, 96, 3), 90, np.uint8)], 10)
    assert extract("folder", tmp_path / "videos", tmp_path / "store") == 0
    with open_store(tmp_path / "store") as store:
        show.still(View([load_clip(store, "single")], height_px=120))
    assert {"no flow", "no motion maps", "a single frame", "centre half (no motion found)"} <= set(words)


def test_a_failed_clip_is_one_page_with_the_reason(tmp_path, words):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"")
    assert extract("folder", tmp_path / "videos", tmp_path / "store") == 3
    with open_store(tmp_path / "store") as store:
        view = View([load_clip(store, "bad")], height_px=200)
    assert len(list(show.render(view))) == 1
    assert {"no frames", "empty_file"} <= set(words)
    assert show.contact_sheet([view]).ndim == 3


def test_a_sheet_names_its_rows_and_says_the_scale_of_its_flow(clip, mapless_path, words):
    with open_store(mapless_path) as store:
        other = load_clip(store, "videos/00000")
    view = View([clip, other])
    show.contact_sheet([view], num_moments=2)
    rows = ["boxes (paper)", "boxes (release)", "optical flow (dis)", "motion map (paper)", "motion map (release)"]
    assert [word for word in words if word in rows] == rows
    assert f"{Footage(view).max_px:g} px/frame" in words


def test_the_title_of_a_short_row_may_be_as_wide_as_the_sheet(clip, tmp_path, words):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video" * 50)
    assert extract("folder", tmp_path / "videos", tmp_path / "store") == 3
    with open_store(tmp_path / "store") as store:
        failed = load_clip(store, "broken")
    alone = show.contact_sheet([View([failed])], num_moments=2)
    assert "clip box" not in words
    assert not (alone == draw.CLIP_BOX).all(axis=2).any(), "the legend names only what is drawn"
    show.contact_sheet([View([clip]), View([failed])], num_moments=6, thumb_height_px=200)
    assert show._title(View([failed])) in words


def test_stores_are_compared_side_by_side(clip, mapless_path, words):
    with open_store(mapless_path) as store:
        other = load_clip(store, "videos/00000")
    view = View([clip, other], panels=["boxes"], height_px=120)
    page = show.still(view)
    assert page.shape[1] == show.page_size(view)[0] > 2 * view.panel_wh[0]
    assert {"boxes (paper)", "boxes (release)"} <= set(words)


def test_playing_keeps_every_views_duration(clip):
    view = View([clip], panels=["boxes"], height_px=64)
    duration = len(clip.times) / view.fps
    assert abs(len(list(show.play([view, view], 2 * view.fps))) / (2 * view.fps) - 2 * duration) < 0.1


def test_long_clips_are_cut_off(clip):
    view = View([clip], panels=["boxes"], height_px=64, max_seconds=0.5)
    assert len(list(show.render(view))) == np.count_nonzero(clip.times - clip.times[0] < 0.5) < len(clip.times)


def test_the_still_shows_the_strongest_motion(clip, words):
    show.still(View([clip], panels=["map"], height_px=64))
    energy = np.convolve(clip.maps.mean(axis=(1, 2)), np.ones(5) / 5, mode="same")
    assert words[0] == f"{clip.times[np.argmax(energy)] - clip.times[0]:.2f} s"


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.png"])
def test_the_command_writes_each_kind(store_path, data, tmp_path, name):
    arguments = [str(store_path), "videos/00000", "videos/00001", "-o", str(tmp_path / name), "--height", "96"]
    arguments += ["--boxes", str(data / "boxes.json"), "--max-seconds", "0.3", "--panels", "boxes,map"]
    result = CliRunner().invoke(show_command.show, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).stat().st_size > 1000


def test_the_command_compares_runs(store_path, mapless_path, tmp_path):
    arguments = [str(store_path), "--random", "2", "--still", "-o", str(tmp_path / "a.png"), "--height", "96"]
    result = CliRunner().invoke(show_command.show, [*arguments, "--against", str(mapless_path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videos/00000", "-o", "x.avi"], "must end in .mp4, .gif, .png"),
        (["-o", "x.png"], "name a clip of .* for example 'videos/00000', 'videos/00001', or give --random N"),
        (["nope", "-o", "x.png"], "clip_id must be a clip of store .* got 'nope'"),
        (["videos/00000", "-o", "x.png", "--panels", "boxes,depth"], "must be a list of boxes, areas, flow, map"),
        (["videos/00000", "-o", "x.png", "--boxes", "nowhere.json"], "boxes file nowhere.json does not exist"),
        (["videos/00000", "-o", "x.png", "--run", "tuna"], "tuna"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(store_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["show", str(store_path), *arguments])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    import re

    assert re.search(message, lines[0])


def test_footage_matches_frames_by_time(clip):
    """A frame that the store does not know is passed over; one that the video lacks is None."""
    from dataclasses import replace

    times = clip.times.copy()
    times[4] += 100  # the video has no such frame
    rows = [0, 2, 4]
    odd = replace(clip, times=times[rows], boxes=clip.boxes[rows], sources=clip.sources[rows], maps=None)
    frames = list(footage.Footage(View([odd], panels=["boxes"], max_seconds=1000)).frames())
    assert [index for index, _ in frames] == [0, 1, 2]
    assert [picture is None for _, picture in frames] == [False, False, True]
