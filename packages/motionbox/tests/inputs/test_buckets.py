"""Data sets in a bucket: the same clips as from a folder; and what is said where it cannot be read."""

import itertools
import json
import pickle
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from bucket_support import NOT_THE_CLOUDS, Answer, answering, make_bucket, refusal, s3_server, upload
from motionbox.errors import InputError, StoreError
from motionbox.extraction.plan import scan_inputs
from motionbox.inputs.data_root import Listing, open_root
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.manifest import load_manifest

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def s3() -> Generator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket."""
    name = f"bucket-{next(_NUMBERS)}"
    make_bucket(s3, name)
    for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}"


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


_FOLDER = {
    "b/frame_10.mp4": "x", "b/frame_2.mp4": "xy", "a clip.WEBM": "xyz", "ü/é.mkv": "x",
    "same.mp4": "1", "same.avi": "2", "tars/one.tar": "t",
    ".hidden/no.mp4": "x", "b/.no.mp4": "x", "notes.txt": "x", "100%25.mp4": "x",
}  # fmt: skip
_SSV2 = {
    "labels/labels.json": json.dumps({"Closing something": "5"}),
    "labels/train.json": json.dumps(
        [{"id": name, "template": "Closing [something]", "label": "closing a door"} for name in ("7", "8")]
    ),
    "20bn-something-something-v2/7.webm": "x",
    "20bn-something-something-v2/8.webm": "xy",
}
_EPIC_HEAD = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,narration,verb,"
    "verb_class,noun,noun_class\n"
)
_EPIC = {
    "annotations/EPIC_100_train.csv": _EPIC_HEAD
    + "P01_01_0,P01,P01_01,00:00:01.00,00:00:02.00,60,120,open door,open,3,door,3\n"
    + "P01_02_0,P01,P01_02,00:00:01.00,00:00:02.00,60,120,open door,open,3,door,3\n",
    "EPIC-KITCHENS/P01/videos/P01_01.MP4": "x",
    "EPIC-KITCHENS/P01/videos/P01_02.MP4": "xy",
}
_LISTED = {
    "annotations.csv": "path,start_seconds,stop_seconds,label\nclips/a.mp4,0,1,run\nclips/a.mp4,1,2,sit\nb.mp4,,,run\n",
    "clips/a.mp4": "x",
    "b.mp4": "xy",
}


@pytest.mark.parametrize(
    ("dataset", "files"), [("folder", _FOLDER), ("ssv2", _SSV2), ("epic100", _EPIC), ("folder", _LISTED)]
)
def test_a_bucket_gives_the_manifest_of_a_folder(
    dataset: str, files: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    local = load_manifest(dataset, _write(tmp_path, files))
    upload(f"{bucket}/some/set", tmp_path)
    remote = load_manifest(dataset, f"{bucket}/some/set/")
    assert remote.to_pylist() == local.to_pylist()
    assert remote.num_rows >= 2
    paths = local.column("path").to_pylist()
    found = {entry.path: entry for entry in scan_inputs(open_root(f"{bucket}/some/set"), paths)}
    for path in paths:
        assert (found[path].kind, found[path].num_bytes) == ("file", (tmp_path / path).stat().st_size)
        assert (found[path].modified_unix, bool(found[path].etag)) == (0, True)


def test_the_same_size_but_another_content_is_another_input(bucket: str, tmp_path: Path) -> None:
    etags = []
    for text in ("one", "two"):
        upload(f"{bucket}/d", _write(tmp_path, {"a.mp4": text}))
        etags.append(scan_inputs(open_root(f"{bucket}/d"), ["a.mp4"])[0].etag)
    assert etags[0] != etags[1]


def test_a_list_may_name_objects_by_url(bucket: str, tmp_path: Path) -> None:
    upload(bucket, _write(tmp_path / "there", {"far/v1.mp4": "x", "set/v2.mp4": "xy"}))
    listed = f"path\n{bucket}/far/v1.mp4\nv3.mp4\n{bucket}/set/v2.mp4\n"
    here = _write(tmp_path / "here", {"annotations.csv": listed, "v3.mp4": "xyz"})
    table = load_manifest("folder", here)
    assert table.column("clip_id").to_pylist() == ["far/v1", "v3", "set/v2"]
    assert [entry.num_bytes for entry in scan_inputs(here, table.column("path").to_pylist())] == [1, 3, 2]
    assert ListedMedia(open_root(f"{bucket}/set")).relative(f"{bucket}/set/v2.mp4") == "v2.mp4"
    (here / "annotations.csv").write_text(f"path\n{bucket}/far/v9.mp4\n")
    with pytest.raises(InputError, match=r"1 of 1 videos \(1 clips\) are missing: s3://.*/far/v9.mp4"):
        load_manifest("folder", here)


def test_a_folder_of_frames_is_asked_for_as_one_object(bucket: str, tmp_path: Path) -> None:
    upload(f"{bucket}/d", _write(tmp_path, {"v/0001.jpg": "x", "v/0002.jpg": "x"}))
    root = open_root(f"{bucket}/d")
    paths = load_manifest("folder", root).column("path").to_pylist()
    with pytest.raises(InputError, match="d/v: a folder of frames must be one object in a bucket; pack it"):
        scan_inputs(root, paths)


def test_a_bucket_or_prefix_that_is_not_there_is_said_in_one_line(bucket: str) -> None:
    with pytest.raises(InputError, match="s3://no-such-one/d: there is no bucket 'no-such-one'; check its name"):
        load_manifest("folder", "s3://no-such-one/d")
    with pytest.raises(InputError, match=f"data root {bucket}/d does not exist"):
        load_manifest("folder", f"{bucket}/d")
    with pytest.raises(InputError, match="a path must be local, got 'https://host/x'"):
        load_manifest("folder", "https://host/x")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", r"access denied \(AccessDenied: no\); ask the owner of the bucket for the right to it"),
        (403, "AccountProblem", r"access denied \(AccountProblem: no\); ask the owner of the bucket"),
        (400, "ExpiredToken", r"the credentials are not accepted \(ExpiredToken: no\); renew them"),
        (403, "SignatureDoesNotMatch", r"the credentials are not accepted \(SignatureDoesNotMatch: no\)"),
        (403, "RequestTimeTooSkewed", r"this machine's clock is not the bucket's \(RequestTimeTooSkewed: no\); set it"),
    ],
)
def test_refusals_are_said_in_one_line(status: int, code: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _method, _path: refusal(status, code)) as endpoint:
        for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(variable, value)
        with pytest.raises(InputError, match=f"s3://somewhere/d: {said}"):
            load_manifest("folder", "s3://somewhere/d")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreError, match=r"s3://b/d needs obstore, .* pip install 'motionbox\[cloud\]'"):
        load_manifest("folder", "s3://b/d")


def _page(path: str, num_keys: int) -> Answer:
    """Return a page of a listing of many keys, in another order than they are sorted in."""
    first = int(path.partition("continuation-token=")[2].partition("&")[0] or 0)
    stop = min(first + 1000, num_keys)
    rows = "".join(
        f"<Contents><Key>set/20bn/{(key * 7919) % num_keys}.webm</Key><Size>{key}</Size>"
        f'<ETag>"{key}"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>'
        for key in range(first, stop)
    )
    more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < num_keys else ""
    body = (
        f"<?xml version='1.0'?><ListBucketResult><IsTruncated>{str(stop < num_keys).lower()}</IsTruncated>{rows}{more}"
    )
    return 200, {"Content-Type": "application/xml"}, f"{body}</ListBucketResult>".encode()


def test_a_listing_of_many_pages_is_sorted_and_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _method, path: _page(path, 5003)) as endpoint:
        for variable, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(variable, value)
        listing = Listing("s3://somewhere/set")
        keys = list(listing.below("20bn"))
        assert keys == sorted(f"20bn/{key}.webm" for key in range(5003))
        entry = listing.entry("20bn/7919.webm") or listing.entry("20bn/2916.webm")
        assert entry is not None
        assert (entry.num_bytes, entry.etag) == (1, '"1"')
        assert [listing.entry(name) for name in ("20bn", "20bn/x.webm")] == [None, None]
        assert list(listing.names("")) == ["20bn"]
        again = pickle.loads(pickle.dumps(open_root("s3://somewhere/set") / "20bn"))  # noqa: S301
        assert str(again) == "s3://somewhere/set/20bn"
