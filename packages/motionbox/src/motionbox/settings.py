"""Settings of both packages: TOML files of a package or a user, `--set key=value`, and one line for what is refused.

What the settings are stands in models: `motionbox.config` and the recipes of `mofo_train`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from motionbox.errors import ConfigError
from motionbox.wording import did_you_mean

_Model = TypeVar("_Model", bound=BaseModel)


def toml_names(package: str) -> list[str]:
    """Return the names of the TOML files that come with a package."""
    return sorted(Path(entry.name).stem for entry in files(package).iterdir() if entry.name.endswith(".toml"))


def read_own_toml(package: str, name: str) -> dict[str, Any]:
    """Read a TOML file that comes with a package."""
    return tomllib.loads((files(package) / f"{name}.toml").read_text(encoding="utf-8"))


def read_toml(path: Path, what: str, otherwise: str) -> dict[str, Any]:
    """Read a user's TOML file.

    Args:
        path: The file.
        what: What it is, for errors.
        otherwise: What to do where it is not there.

    Raises:
        ConfigError: It is not there or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors put marks first
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist; {otherwise}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{what} {path} must be readable TOML: {error}") from None


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return `section.key=value` as dotted key -> value, read as in TOML; what is none is a bare word.

    Raises:
        ConfigError: One has no `=`, or an empty key.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or not all(key.split(".")):
            raise ConfigError(f"--set must be section.key=value, got {text!r}")
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return values


def validate(model: type[_Model], values: Mapping[str, Any], source: str) -> _Model:
    """Build a model from plain values.

    Raises:
        ConfigError: A value is refused (names key, rule and value) or a key unknown (names the nearest valid one).
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            hint = _hint([part for part in first["loc"] if isinstance(part, str)], model)
            raise ConfigError(f"{source}: unknown key {key!r}; {hint}") from None
        rule = str(first["msg"]).removeprefix("Value error, ")
        line = f"{key}: {rule}" if key else rule
        line += "" if ", got " in rule else f", got {first['input']!r}"
        raise ConfigError(f"{source}: {line}") from None


def digest_of(values: Any) -> str:
    """Return the SHA-256 of the canonical JSON of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hint(keys: Sequence[str], model: type[BaseModel]) -> str:
    """Name the valid key most like a wrong one; the right name in another section counts as much as a misspelt one."""
    valid, parent, name = list(_dotted_keys(model)), ".".join(keys[:-1]), keys[-1]
    beside = [other for other in valid if other.rpartition(".")[0] == parent]
    by_name = {other.rpartition(".")[2]: other for other in (*valid, *beside)}
    return did_you_mean(name, by_name, f"valid keys: {', '.join(sorted(beside or valid))}", cutoff=0.7)


def _dotted_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for section in _sections(field.annotation):
            yield from (f"{name}.{key}" for key in _dotted_keys(section))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field holds, itself or in a list or as one of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
