"""Settings of a round from a file and from flags."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
