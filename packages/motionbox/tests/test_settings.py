"""Settings: overrides, files, and one line for what is refused."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from motionbox.errors import ConfigError
from motionbox.settings import parse_overrides, read_toml, validate


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width_px: int = Field(1, ge=1)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    part: Part | None = None
    rows: list[Part] = []


def test_overrides_are_toml_values() -> None:
    texts = ("a.b=1", "c=true", "d=text", "e=0.5", "f=[1]", "g=x=y")
    assert parse_overrides(texts) == {"a.b": 1, "c": True, "d": "text", "e": 0.5, "f": [1], "g": "x=y"}
    for text in ("novalue", "=1", "a..b=1"):
        with pytest.raises(ConfigError, match=f"--set must be section.key=value, got '{text}'"):
            parse_overrides((text,))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"part": {"width_px": 0}}, "x.toml: part.width_px: Input should be greater than or equal to 1, got 0"),
        ({"part": {"with_px": 2}}, "x.toml: unknown key 'part.with_px'; did you mean 'part.width_px'?"),
        ({"rows": [{}, {"with_px": 2}]}, "x.toml: unknown key 'rows.1.with_px'; did you mean 'rows.width_px'?"),
        ({"width_px": 2}, "x.toml: unknown key 'width_px'; did you mean 'rows.width_px'?"),
        ({"zzz": 2}, "x.toml: unknown key 'zzz'; valid keys: part, rows"),
    ],
)
def test_what_is_refused_is_one_line(values: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(Whole, values, "x.toml")
    assert str(refusal.value) == line


def test_files_may_begin_with_a_mark_and_must_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(ConfigError, match=r"recipe .*a\.toml does not exist; name another"):
        read_toml(path, "recipe", "name another")
    path.write_bytes(b"\xef\xbb\xbfseed = 3\n")
    assert read_toml(path, "recipe", "") == {"seed": 3}
    path.write_bytes(b"seed = ")
    with pytest.raises(ConfigError, match=r"recipe .*a\.toml must be readable TOML: "):
        read_toml(path, "recipe", "")
