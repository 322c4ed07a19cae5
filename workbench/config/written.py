"""Settings of a round as a file that explains itself."""

import json
from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel

from workbench.config.rounds import NumericsSettings, RoundSettings

BY_METHOD = frozenset(
    {"start", "anchors", "schedule", "replay", "moving", "penalties", "merging", "after", "objective"}
)
"""What a method may set: written as a comment where it is what the method says, so that another method can be named."""


def as_toml(settings: RoundSettings) -> str:
    """The settings as a file, every value with what it means."""
    given = RoundSettings.model_validate({"method": settings.method})
    return "\n".join(_lines(settings, "", given)) + "\n"


def _lines(settings: BaseModel, section: str, given: BaseModel | None) -> Iterator[str]:
    """Lines of a section; values equal to those of `given` are commented out where a method may set them."""
    tables: list[tuple[str, tuple[BaseModel, ...]]] = []
    elsewhere = settings.left_out if isinstance(settings, NumericsSettings) else set[str]()
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        values = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
        inner = tuple(one for one in values if isinstance(one, BaseModel))
        same = (section or name) in BY_METHOD and given is not None and getattr(given, name) == value
        if inner:
            title = f"{section}.{name}".lstrip(".")
            mark = "# " if same and isinstance(value, tuple) else ""
            tables.append((f"{mark}[[{title}]]" if isinstance(value, tuple) else f"[{title}]", inner))
            continue
        yield from (f"# {line.strip()}" for line in (field.description or "").splitlines() if line.strip())
        mark = "# " if same else ""
        if value is None or name in elsewhere:
            yield f"# {name} is {'off' if value is None else 'what workbench.toml of the workspace says'}"
        else:
            yield f"{mark}{name} = {json.dumps(value, ensure_ascii=False)}"
    for title, inner in tables:
        name, mark = title.strip("#[] "), "# " if title.startswith("#") else ""
        below = getattr(given, name, None)
        for one in inner:
            yield f"\n{title}"
            lines = _lines(one, name, below if isinstance(below, BaseModel) else None)
            yield from (f"{mark}{line}" if not line.startswith("#") else line for line in lines)
