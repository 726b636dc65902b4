from pathlib import Path, PurePosixPath

import pytest

from motionbox.errors import InputError
from motionbox.storage import ObjectPath, parse_place


def test_a_path_stays_a_path_and_a_url_becomes_an_object() -> None:
    assert parse_place("stores/x") == Path("stores/x")
    assert parse_place("s3://b/stores//x/") == ObjectPath("s3://b", "stores/x")
    assert parse_place("GS://b") == ObjectPath("gs://b", "")
    assert str(parse_place("az://container/x")) == "az://container/x"


@pytest.mark.parametrize("url", ["ftp://host/x", "s3:///x", "https://host/x", "s3://b/../x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"a store must be a local path or|a URL must name every part"):
        parse_place(url)


def test_names_that_are_no_utf8_are_refused() -> None:
    assert parse_place("größe/x") == Path("größe/x")
    with pytest.raises(InputError, match=r"a store's path must be UTF-8, got 'st\\udcff/x'; rename the folder"):
        parse_place("st\udcff/x")


def test_parts_of_a_key_are_those_of_a_path() -> None:
    place, same = ObjectPath("s3://b", "runs/1/u000000.json"), PurePosixPath("/runs/1/u000000.json")
    for name in ("name", "stem", "suffix"):
        assert getattr(place, name) == getattr(same, name)
    assert place.parent == ObjectPath("s3://b", "runs/1")
    assert place.with_name("x") == ObjectPath("s3://b", "runs/1/x")
    assert place.relative_to(ObjectPath("s3://b", "runs")) == PurePosixPath("1/u000000.json")
    assert ObjectPath("s3://b", "") / "x" == ObjectPath("s3://b", "x")
    with pytest.raises(ValueError, match="does not lie below"):
        place.relative_to(ObjectPath("s3://other", "runs"))
