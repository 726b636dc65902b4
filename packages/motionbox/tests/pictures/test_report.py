import base64
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from motionbox.cli import main
from motionbox.pictures import report
from motionbox.pictures.footage import load_clip
from motionbox.pictures.report import ReportOptions, build_report, choose_previews
from motionbox.store import open_store
from motionbox.synthetic import SyntheticConfig, plan_clips, write_dataset
from motionbox.video.encode import write_file

HOSTILE = "<img src=x onerror='document.body.dataset.hacked=1'>&\"'$(x)"
CLOSING = "a </script><script>document.body.dataset.hacked=1</script> b".replace("/", "∕")


def extract(dataset, root, store, *more):
    arguments = ["--dataset", dataset, "--data-root", str(root), "--store", str(store), "--executor", "serial"]
    with pytest.raises(SystemExit) as stop:
        main(["extract", *arguments, "--flow", "dis", *more])
    return stop.value.code


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("report") / "videos"
    write_dataset(root, SyntheticConfig(num_clips=3, seed=4))
    return root


@pytest.fixture(scope="module")
def synthetic_store(data):
    assert extract("synthetic", data, data.parent / "store") == 0
    return data.parent / "store"


@pytest.fixture(scope="module")
def hostile_store(data):
    """Clips whose names try to break out of the page, and a broken one."""
    folder = data.parent / "hostile"
    folder.mkdir()
    first = next(plan for plan in plan_clips(SyntheticConfig(num_clips=3, seed=4)) if plan.suffix == ".mp4")
    for name in (HOSTILE, CLOSING):
        shutil.copy(data / first.path, folder / f"{name}.mp4")
    (folder / "broken <b>.mp4").write_bytes(b"no video" * 50)
    write_file(folder / "single.mp4", [np.full((64, 96, 3), 90, np.uint8)], 10)
    assert extract("folder", folder, data.parent / "hostile-store") == 3
    return data.parent / "hostile-store"


@pytest.fixture(scope="module")
def page(synthetic_store):
    with open_store(synthetic_store) as store:
        return build_report(store, ReportOptions(num_previews=2))


@pytest.fixture(scope="module")
def hostile_page(hostile_store):
    with open_store(hostile_store) as store:
        return build_report(store, ReportOptions(num_previews=3))


def content(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL).group(1))


def column(page, name, kind):
    return np.frombuffer(base64.b64decode(content(page)["columns"][name]), kind)


def test_the_page_holds_the_stores_numbers(page, synthetic_store):
    with open_store(synthetic_store) as store:
        clips = store.clips()
    found = content(page)
    assert found["ids"] == clips.column("clip_id").to_pylist()
    assert column(page, "frames", "<i4").tolist() == clips.column("num_frames").to_pylist()
    corners = np.stack([clips.column(side).to_numpy() for side in ("x1", "y1", "x2", "y2")], axis=1)
    size = np.stack([clips.column(side).to_numpy() for side in ("width", "height") * 2], axis=1)
    np.testing.assert_allclose(column(page, "boxes", "<u2").reshape(-1, 4) / 1000, corners / size, atol=6e-4)
    share = np.prod(corners[:, 2:] - corners[:, :2], axis=1) / np.prod(size[:, :2], axis=1)
    np.testing.assert_allclose(column(page, "area", "<u2") / 10_000, share, atol=6e-5)
    verb = next(k for k, label in enumerate(found["labels"]) if label["name"] == "verb")
    codes = column(page, f"label{verb}", "<u2")
    assert [found["labels"][verb]["values"][code] for code in codes] == clips.column("verb").to_pylist()
    assert len(found["previews"]) == 2


def test_the_page_loads_nothing(page, hostile_page):
    for text in (page, hostile_page):
        assert "default-src 'none'" in text
        outside = re.sub(r'<script id="data".*?</script>', "", text, flags=re.DOTALL)
        assert not re.search(r"https?://|@import|url\(|<link|<iframe", outside)
        for url in re.findall(r'"(?:poster|video)":"([^"]{0,16})', text):
            assert url.startswith("data:")


def test_names_are_escaped_everywhere(hostile_page):
    assert "<img" not in hostile_page
    assert hostile_page.count("<script") == 2
    assert "broken <b>" not in hostile_page
    assert HOSTILE in content(hostile_page)["ids"]


def test_failures_are_counted_by_reason(hostile_page):
    assert "failed: not_a_video" in hostile_page
    found = content(hostile_page)
    states = [found["statuses"][code] for code in column(hostile_page, "status", "u1")]
    assert states[found["ids"].index("broken <b>")] == "failed"
    assert states[found["ids"].index("single")] == "no_motion"


def test_failed_clips_have_no_preview_and_single_frames_do(hostile_page):
    found = content(hostile_page)
    assert {found["ids"][int(row)] for row in found["previews"]} == {HOSTILE, CLOSING, "single"}


def test_lost_videos_and_missing_maps_do_not_stop_the_report(data, tmp_path):
    assert extract("synthetic", data, tmp_path / "store", "--preset", "paper", "--set", "store.motion_maps=false") == 0
    with open_store(tmp_path / "store") as store:
        text = build_report(store, ReportOptions(num_previews=1, data_root=tmp_path / "gone"))
    assert len(content(text)["previews"]) == 1
    assert "not kept" in text
    assert "nothing to show" in text


def make_clips(num_clips, **columns):
    values = {
        "clip_id": [f"c{k}" for k in range(num_clips)],
        "num_frames": pa.array([10] * num_clips, pa.int32()),
        "confidence": [k / num_clips for k in range(num_clips)],
        "verb": [f"v{k % 7}" for k in range(num_clips)],
        **columns,
    }
    return pa.table(values)


def test_previews_show_the_least_and_most_confident_and_every_class():
    clips = make_clips(90)
    chosen = choose_previews(clips, 30)
    assert len(chosen) == len(set(chosen)) == 30
    assert set(range(10)) | set(range(80, 90)) <= set(chosen)
    assert {row % 7 for row in chosen[20:]} == set(range(7))


def test_previews_never_show_failed_clips_nor_more_than_there_are():
    clips = make_clips(9, num_frames=pa.array([0, 5] * 4 + [0], pa.int32()))
    assert sorted(choose_previews(clips, 30)) == [1, 3, 5, 7]
    assert choose_previews(clips, 0) == []
    unknown = make_clips(9, confidence=pa.nulls(9, pa.float32()))
    assert len(choose_previews(unknown, 6)) == 6


def test_an_excerpt_is_the_strongest_part(synthetic_store):
    with open_store(synthetic_store) as store:
        clip = load_clip(store, "videos/00000")
    times = np.arange(100) / 10
    maps = np.zeros((100, 3, 4), np.uint8)
    maps[60:80] = 50
    boxes = np.tile(clip.boxes[:1], (100, 1))
    long = replace(clip, times=times, maps=maps, boxes=boxes, sources=np.zeros(100, np.uint8))
    cut = report._excerpt(long)
    assert cut.times[0] <= 6.0
    assert cut.times[-1] >= 7.9
    assert len(cut.times) == len(cut.boxes) == len(cut.maps) == 25
    assert cut.row["start_seconds"] == pytest.approx(cut.times[0] - 0.05)
    assert report._excerpt(cut) is cut, "short clips stay whole"


def test_large_stores_are_sampled_evenly(synthetic_store):
    with open_store(synthetic_store) as store:
        text = build_report(store, ReportOptions(num_previews=0, max_clips=2))
    assert content(text)["ids"] == ["videos/00000", "videos/00001"]
    assert "2 of the store&#x27;s 3 clips" in text


def test_the_command_writes_the_page_or_says_why_not(synthetic_store, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(synthetic_store), "-o", str(tmp_path / "sub" / "page.html"), "--previews", "0"])
    assert stop.value.code == 0
    assert (tmp_path / "sub" / "page.html").read_text().startswith("<!doctype html>")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(synthetic_store), "-o", str(tmp_path / "page.pdf")])
    assert stop.value.code == 2
    assert "must end in .html" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Run JavaScript in a page in a real browser; returns what the script's `result` object holds at the end."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")

    def run(page, script):
        folder = tmp_path_factory.mktemp("browser")
        wrapped = (
            "<script>const result = {}; (async () => {"
            f"try {{ {script} }} catch (error) {{ result.error = String(error); }}"
            'document.body.append(Object.assign(document.createElement("pre"), '
            '{id: "result", textContent: JSON.stringify(result)})); })();</script></body>'
        )
        (folder / "page.html").write_text(page.replace("</body>", wrapped), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
        command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "page.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL).group(1)))
        assert "error" not in found, found["error"]
        return found

    return run


CARDS = "[...document.querySelectorAll('.card')].map((card) => card.dataset.clip)"


def test_in_a_browser_the_gallery_filters_sorts_and_opens(page, synthetic_store, browse):
    script = f"""
    const cards = () => {CARDS};
    const set = (id, value) => {{ const node = document.getElementById(id); node.value = value;
        node.dispatchEvent(new Event("input", {{bubbles: true}})); }};
    result.ready = document.body.dataset.ready;
    result.all = cards();
    set("find", "0002"); result.found = cards(); result.count = document.getElementById("count").textContent;
    set("find", "");
    set("order", "frames-down"); result.sorted = cards();
    set("order", "given"); result.given = cards();
    const label = document.getElementById("label0");
    set("label0", label.options[1].value); result.labelled = cards(); result.label = label.options[1].textContent;
    set("label0", "");
    document.getElementById("previews").click(); result.previewed = cards();
    document.querySelector(".card video").closest(".card").click();
    result.open = document.getElementById("detail").open;
    result.heading = document.querySelector("#detail h3").textContent;
    result.command = document.querySelector("#detail code").textContent;
    const video = document.querySelector("#detail video");
    await new Promise((done) => {{
        video.addEventListener("loadeddata", done); video.load(); setTimeout(done, 5000); }});
    result.video = [video.videoWidth, video.videoHeight];
    document.getElementById("close").click(); result.closed = !document.getElementById("detail").open;
    """
    found = browse(page, script)
    with open_store(synthetic_store) as store:
        clips = store.clips()
    ids, frames = clips.column("clip_id").to_pylist(), clips.column("num_frames").to_pylist()
    assert found["ready"] == "yes"
    assert sorted(found["all"]) == ids
    assert found["found"] == ["videos/00002"]
    assert found["count"] == "1 of 3 clips."
    assert found["given"] == ids
    assert found["sorted"] == [ids[k] for k in sorted(range(3), key=lambda k: (-frames[k], k))]
    assert found["labelled"] == [
        clip for clip, verb in zip(ids, clips.column("verb").to_pylist(), strict=True) if verb == found["label"]
    ]
    assert len(found["previewed"]) == 2
    assert found["open"]
    assert found["closed"]
    assert found["heading"] == found["previewed"][0]
    assert found["command"].startswith("motionbox show ")
    assert found["command"].endswith(f"-- '{found['heading']}'")
    assert found["video"][0] > found["video"][1] > 100


def test_in_a_browser_hostile_names_are_only_text(hostile_page, browse):
    found = browse(
        hostile_page,
        f"""result.cards = {CARDS};
        const find = document.getElementById("find");
        const search = (words) => {{ find.value = words; find.dispatchEvent(new Event("input", {{bubbles: true}})); }};
        search("not_a_vid");
        result.broken = [...document.querySelectorAll(".card")].map(
            (card) => [card.dataset.clip, card.querySelector(".about span").textContent]);
        search("");
        const close = document.getElementById("close");
        for (const card of document.querySelectorAll(".card")) {{ card.click(); close.click(); }}
        document.querySelector(".card[data-clip^='<img']").click();
        result.command = document.querySelector("#detail code").textContent;
        await new Promise((done) => setTimeout(done, 200));
        result.hacked = document.body.dataset.hacked ?? "no";
        result.images = document.querySelectorAll("img").length;""",
    )
    assert set(found["cards"]) == {HOSTILE, CLOSING, "broken <b>", "single"}
    assert found["broken"] == [["broken <b>", "failed: not_a_video"]], "found by the reason that its card says"
    assert found["hacked"] == "no"
    assert found["images"] == 0
    spoken = subprocess.run(
        ["bash", "-c", f"printf %s {found['command'].split(' -- ', 1)[1]}"], capture_output=True, text=True, check=True
    )
    assert spoken.stdout == HOSTILE, "the command that the page offers names the clip to a shell"


def test_in_a_browser_many_clips_are_paged(page, browse):
    many = content(page)
    num_clips = 60
    many["ids"] = [f"clip {k:03d}" for k in range(num_clips)]
    many["previews"], many["reasons"], many["labels"] = {}, {}, []
    confidence = np.random.default_rng(0).permutation(num_clips).astype("<u2") * 100
    confidence[7] = 65535
    columns = {"confidence": confidence, "area": confidence, "ratio": np.full(num_clips, 1500, "<u2")}
    columns |= {"frames": np.ones(num_clips, "<i4"), "status": np.zeros(num_clips, "u1")}
    columns["boxes"] = np.full(4 * num_clips, 65535, "<u2")
    many["columns"] = {name: base64.b64encode(values.tobytes()).decode() for name, values in columns.items()}
    head, rest = page.split('<script id="data" type="application/json">')
    tail = rest.split("</script>", 1)[1]
    text = f'{head}<script id="data" type="application/json">{json.dumps(many)}</script>{tail}'
    script = f"""
    result.first = {CARDS}; result.back = document.getElementById("back").disabled;
    document.getElementById("next").click(); document.getElementById("next").click();
    result.last = {CARDS}; result.next = document.getElementById("next").disabled;
    """
    found = browse(text, script)
    ranked = [many["ids"][k] for k in np.argsort(confidence, kind="stable")]
    assert found["first"] == ranked[:24]
    assert found["last"] == ranked[48:]
    assert found["last"][-1] == "clip 007", "a clip without confidence comes last"
    assert found["back"]
    assert found["next"]
