"""Settings of a round from a file and from flags, and back into a file that explains itself."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from workbench.config import RoundSettings, read_settings, read_values, settings_from
from workbench.errors import ConfigError

FLAGS = "command line"


def round_settings(
    file: Path | None,
    *,
    method: str | None = None,
    parent: str | None = None,
    version: str | None = None,
    anchors: Sequence[str] = (),
    assignments: Sequence[str] = (),
) -> RoundSettings:
    """The settings of a file with those of flags over them.

    Args:
        file: TOML; None for the defaults.
        method: as in the settings; None to leave it.
        parent: as in the settings; None to leave it.
        version: as in the settings; None to leave it.
        anchors: `POLICY=WEIGHT` each; replace all anchors of the file.
        assignments: `KEY=VALUE` each, such as `training.epochs=2`; values as TOML has them, or plain text.

    Raises:
        ConfigError: a key, value or flag is wrong; names it.
    """
    values: dict[str, Any] = {}
    if file:
        read_settings(file, RoundSettings)  # an error in the file is told as the file's
        values = read_values(file)
    for one in assignments:
        assign(values, one)
    if anchors:
        values["anchors"] = [_anchor(one) for one in anchors]
    flags = {"method": method, "parent": parent, "version": version}
    values |= {name: value for name, value in flags.items() if value is not None}
    return settings_from(values, RoundSettings, where=FLAGS if file is None else f"{file.name} with {FLAGS}")


def _anchor(given: str) -> dict[str, object]:
    policy, _, weight = given.rpartition("=")
    try:
        return {"policy": policy, "weight": float(weight)}
    except ValueError as error:
        raise ConfigError(f"--anchor {given}: expected POLICY=WEIGHT, such as parent=0.5") from error


def assign(values: dict[str, Any], given: str) -> None:
    """Put `KEY=VALUE` into nested values.

    Raises:
        ConfigError: it is no such thing, or the key leads through a value that is no section.
    """
    key, separator, text = given.partition("=")
    if not separator:
        raise ConfigError(f"--set {given}: expected KEY=VALUE, such as training.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {given}: {part} is no section of the settings")
    values[last] = value


BY_METHOD = frozenset({"start", "anchors", "schedule", "replay", "moving", "penalties", "after", "objective"})
"""What a method may set: written as a comment where it is what the method says, so that another method can be named."""


def as_toml(settings: RoundSettings) -> str:
    """The settings as a file, every value with what it means."""
    given = RoundSettings.model_validate({"method": settings.method})
    return "\n".join(_lines(settings, "", given)) + "\n"


def _lines(settings: BaseModel, section: str, given: BaseModel | None) -> Iterator[str]:
    """Lines of a section; values equal to those of `given` are commented out where a method may set them."""
    tables: list[tuple[str, tuple[BaseModel, ...]]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        inner = tuple(one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, BaseModel))
        same = (section or name) in BY_METHOD and given is not None and getattr(given, name) == value
        if inner:
            title = f"{section}.{name}".lstrip(".")
            mark = "# " if same and isinstance(value, tuple) else ""
            tables.append((f"{mark}[[{title}]]" if isinstance(value, tuple) else f"[{title}]", inner))
            continue
        yield from (f"# {line.strip()}" for line in (field.description or "").splitlines() if line.strip())
        mark = "# " if same else ""
        yield f"# {name} is off" if value is None else f"{mark}{name} = {json.dumps(value, ensure_ascii=False)}"
    for title, inner in tables:
        name, mark = title.strip("#[] "), "# " if title.startswith("#") else ""
        below = getattr(given, name, None)
        for one in inner:
            yield f"\n{title}"
            lines = _lines(one, name, below if isinstance(below, BaseModel) else None)
            yield from (f"{mark}{line}" if not line.startswith("#") else line for line in lines)
