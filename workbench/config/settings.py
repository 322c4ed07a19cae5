"""What all settings share: strict, frozen, read from TOML with errors that name file, key and what is known."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


S = TypeVar("S", bound="Settings")


def read_settings(path: Path, kind: type[S]) -> S:
    """Settings from a TOML file.

    Args:
        path: the file.
        kind: the settings expected in it.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key or value in it is wrong; names file and key.
    """
    return settings_from(read_values(path), kind, where=path.name)


def read_values(path: Path) -> dict[str, Any]:
    """What a TOML file of settings says, unchecked.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return values_of(path.read_text(encoding="utf-8"), where=str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `workbench plan --write {path}` makes one to edit") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}; correct the line named") from error


def values_of(text: str, *, where: str) -> dict[str, Any]:
    """What TOML says, unchecked.

    Raises:
        ConfigError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}; correct the line named") from error


def settings_from(values: dict[str, object], kind: type[S], *, where: str) -> S:
    """Settings from plain values, with errors that name the place and the known keys.

    Raises:
        ConfigError: a key is unknown or a value is out of bounds.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, e, where) for e in error.errors())) from error


def _explain(kind: type[Settings], problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(kind, path[:-1]))
        return f"{where} [{'.'.join(path[:-1]) or 'top'}]: unknown key '{path[-1]}'; known keys: {known}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f" (got {problem.get('input')!r})"
    return f"{where} [{'.'.join(path) or 'top'}]: {message}{given}"


def _known_keys(kind: type[Settings], path: list[str]) -> list[str]:
    """Field names of the settings found by walking `path` (list indices are skipped)."""
    for part in path:
        if part.isdigit():
            continue
        annotation: Any = kind.model_fields[part].annotation
        candidates: tuple[Any, ...] = (annotation, *getattr(annotation, "__args__", ()))
        inner: list[type[Settings]] = [a for a in candidates if _is_settings(a)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)


def _is_settings(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)
