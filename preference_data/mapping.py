"""Mapping files: which fields of a JSON, JSONL, CSV or table row mean what, in TOML.

::

    prompt = ["instruction", "input?"]     # joined by a blank line; "?" marks a part that may be empty
    first = "response1"                    # two answers and labels that say which is better …
    second = "response2"
    labels = ["annotator1", "annotator2"]  # one judgement per field
    ignore = ["idx"]                       # every other field stays in the judgement's `extra`

    [values]                               # first, second, tie, neither, skip; "first 3" adds a strength of 1 to 3
    1 = "first"
    2 = "second"
    0 = "tie"

    [slices]
    domain = { field = "category" }
    language = "en"

In place of `first` and `second`: `chosen` and `rejected` where the fields themselves say which is better (no labels),
or `completion` where a label says up or down. Further keys: `source`, `join`, `annotator`, `strength`, `rationale`,
`at`, `policies`. Field names may be dotted paths (`meta.author`, `turns.0.text`).
"""

import tomllib
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from preference_data.errors import InputRefused, RowRefused
from preference_data.importers.fields import compare, integer, judge, moment, opening, refused, side, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Message, Opinion, Pairwise, Prompt, Thumb, Verdict
from preference_data.store import Entry

SAMPLES = "samples/mappings"
THUMBS = {"up": True, "down": False}
OPINIONS = (*(verdict.value for verdict in Verdict), *THUMBS)
OPTIONAL = "?"


class FromField(BaseModel):
    """A slice read from the row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str


class Mapping(BaseModel):
    """What a mapping file says; the module's text explains each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: list[str] = Field(min_length=1)
    join: str = "\n\n"
    source: str = ""
    first: str = ""
    second: str = ""
    chosen: str = ""
    rejected: str = ""
    completion: str = ""
    labels: list[str] = []
    values: dict[str, str] = {}
    annotator: str = ""
    strength: str = ""
    rationale: str = ""
    at: str = ""
    policies: list[str] = []
    slices: dict[str, str | FromField] = {}
    ignore: list[str] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [fields for fields in self._layouts() if any(fields)]
        if len(given) != 1 or not all(given[0]):
            raise ValueError("expected one of: first and second; chosen and rejected; completion")
        if bool(self.labels) == bool(self.chosen) or bool(self.labels) != bool(self.values):
            raise ValueError("labels and values go with first and second or completion, never with chosen and rejected")
        if self.policies and len(self.policies) != len(self.answers):
            raise ValueError(f"policies names {len(self.policies)} fields for {len(self.answers)} answers")
        for label, meaning in self.values.items():
            kinds = set(THUMBS) if self.completion else {verdict.value for verdict in Verdict}
            word, _, strength = meaning.partition(" ")
            if word not in kinds or strength not in {"", "1", "2", "3"}:
                raise ValueError(f"values.{label}: got {meaning!r}; expected one of {', '.join(sorted(kinds))}")
        return self

    def _layouts(self) -> Iterator[tuple[str, ...]]:
        yield self.first, self.second
        yield self.chosen, self.rejected
        yield (self.completion,)

    @property
    def answers(self) -> tuple[str, ...]:
        """Fields of the answers."""
        return next(fields for fields in self._layouts() if all(fields))

    @property
    def used(self) -> set[str]:
        """Top-level fields that a record carries, so that `extra` need not."""
        slices = [value.field for value in self.slices.values() if isinstance(value, FromField)]
        named = [self.annotator, self.strength, self.rationale, self.at]
        fields = [*self.prompt, *self.answers, *self.labels, *self.policies, *slices, *named, *self.ignore]
        return {field.removesuffix(OPTIONAL) for field in fields}


def load(mapping: Path | str) -> Importer:
    """The importer a mapping file describes.

    Args:
        mapping: path of a TOML file, or the name of a mapping that comes along (`samples()`).

    Raises:
        InputRefused: no such file, not TOML, or a key is unknown, missing or contradicts another.
    """
    path = Path(mapping)
    along = resources.files("preference_data").joinpath(SAMPLES, f"{mapping}.toml")
    if path.is_file():
        content = path.read_bytes()
    elif str(mapping) in samples():
        content = along.read_bytes()
    else:
        raise InputRefused(f"{mapping}: no such mapping file; give a path, or one of {', '.join(samples())}")
    try:
        read = Mapping.model_validate(tomllib.loads(content.decode("utf-8")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputRefused(f"{path.name}: not TOML: {error}; correct the file") from error
    except ValidationError as error:
        raise InputRefused(f"{path.name}: {_first_fault(error)}") from error
    return Importer(f"mapping {path.stem}", _fits_any, converter(read))


def _fits_any(row: dict[str, Any]) -> bool:
    del row  # the user said that the mapping fits
    return True


def samples() -> list[str]:
    """Names of the mappings that come along."""
    folder = resources.files("preference_data").joinpath(SAMPLES)
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    known = ", ".join(Mapping.model_fields)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known keys: {known}"
    if fault["type"] == "missing":
        return f"key {key!r} is missing; add it"
    return f"{key}: {fault['msg']}".removeprefix(": ").replace("Value error, ", "")


def converter(mapping: Mapping) -> Callable[[dict[str, Any], Source], list[Entry]]:
    """Rows as records, by the mapping."""

    def convert(row: dict[str, Any], source: Source) -> list[Entry]:
        named = Source(mapping.source, source.at) if mapping.source else source
        answers = [side(_value(row, field), field) for field in mapping.answers]
        if any(answer.before for answer in answers):
            raise RowRefused(f"{mapping.answers[0]}: several messages; expected the answer alone; map another field")
        comparison = compare(
            named,
            Prompt(_prompt(row, mapping)),
            [answer.answer for answer in answers],
            policies=[text(_value(row, field), field) for field in mapping.policies],
            slices={name: _slice(row, given) for name, given in mapping.slices.items()},
        )
        said = {field: _opinion(row, field, mapping) for field in mapping.labels}
        said = said or {"": Pairwise(Verdict.FIRST, _strength(row, mapping))}
        handle = text(_value(row, mapping.annotator), mapping.annotator) if mapping.annotator else named.annotator
        judgements = (
            judge(
                named,
                comparison,
                opinion,
                annotator=f"{handle}:{field}" if len(said) > 1 else handle,
                rationale=str(_value(row, mapping.rationale) or "") if mapping.rationale else "",
                at=moment(_value(row, mapping.at), mapping.at) if mapping.at else None,
                extra={k: v for k, v in row.items() if k not in mapping.used and v is not None},
            )
            for field, opinion in said.items()
        )
        return [Entry(comparison, tuple(judgements))]

    return convert


def _prompt(row: dict[str, Any], mapping: Mapping) -> tuple[Message, ...]:
    first = _value(row, mapping.prompt[0])
    if len(mapping.prompt) == 1:
        return opening(first, mapping.prompt[0])
    parts: list[str] = []
    for name in mapping.prompt:
        field = name.removesuffix(OPTIONAL)
        value = _value(row, field)
        empty = value is None or (isinstance(value, str) and not value.strip())
        if not (empty and name.endswith(OPTIONAL)):
            parts.append(text(value, field))
    return opening(mapping.join.join(parts), mapping.prompt[0])


def _value(row: dict[str, Any], field: str) -> object:
    """The value at a field name or dotted path; None where there is none."""
    if field in row:
        return row[field]
    value: object = row
    for step in field.split("."):
        if isinstance(value, dict):
            value = cast("dict[str, object]", value).get(step)
        elif isinstance(value, list) and step.isdecimal():
            value = dict(enumerate(cast("list[object]", value))).get(int(step))
        else:
            return None
    return value


def _opinion(row: dict[str, Any], field: str, mapping: Mapping) -> Opinion:
    value = _value(row, field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables hold 1.0 where JSON says 1
    label = str(value).lower() if isinstance(value, bool) else str(value)
    if value is None or label not in mapping.values:
        raise refused(field, value, f"a label the mapping knows ({', '.join(mapping.values)})")
    word, _, strength = mapping.values[label].partition(" ")
    if word in THUMBS:
        return Thumb(THUMBS[word])
    verdict = Verdict(word)
    return Pairwise(verdict, int(strength) if strength else _strength(row, mapping))


def _strength(row: dict[str, Any], mapping: Mapping) -> int | None:
    value = _value(row, mapping.strength) if mapping.strength else None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return None if value is None or value == "" else integer(value, mapping.strength, low=1, high=3)


def _slice(row: dict[str, Any], given: str | FromField) -> str:
    if isinstance(given, str):
        return given
    value = _value(row, given.field)
    if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    raise refused(given.field, value, "a name for the slice")
