"""Rows of JSON files: one object per line, or one array, streamed so that memory does not grow with the file."""

# ijson has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, cast

import ijson
from ijson.common import ObjectBuilder

from preference_data.errors import InputRefused, RowRefused
from preference_data.streams import DAMAGE, MAX_DEPTH, MAX_ROW_BYTES, Refusal, Row, Stream, fault, lines

OPENING = ("start_map", "start_array")
CLOSING = ("end_map", "end_array")


def parse(content: bytes) -> dict[str, Any] | Refusal:
    """One line of JSON Lines as a row."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return Refusal(f"not UTF-8: byte 0x{content[error.start]:02x} at byte {error.start + 1}; save it as UTF-8")
    except json.JSONDecodeError as error:
        return Refusal(f"not JSON: {error.msg} at column {error.colno}; expected one object per line; correct the line")
    except RecursionError:
        return Refusal(f"nested deeper than {MAX_DEPTH} levels; expected a flat row; drop it")
    except ValueError as error:  # NaN, or an integer of thousands of digits
        return Refusal(str(error))
    return checked(value)


def _no_number(name: str) -> NoReturn:
    raise RowRefused(f"not JSON: {name} is no JSON number; expected a number or null; correct the line")


def checked(value: object) -> dict[str, Any] | Refusal:
    """A parsed value if it is a row that can be stored."""
    if not isinstance(value, dict):
        return Refusal(f"row is a {type(value).__name__}; expected an object with named fields; correct or drop it")
    if reason := fault(cast("object", value)):
        return Refusal(reason)
    return cast("dict[str, Any]", value)


def json_lines(stream: Stream) -> Iterator[Row]:
    """Rows of a JSON Lines file; blank lines are passed over."""
    for number, content in lines(stream):
        if isinstance(content, Refusal):
            yield Row(number, content, stream.bytes_done)
        elif content.strip():
            yield Row(number, parse(content), stream.bytes_done)


def looks_like_lines(stream: Stream) -> bool:
    """Whether a file called .json holds JSON Lines all the same: its second line begins a second object."""
    try:
        first = stream.readline(MAX_ROW_BYTES)
        second = stream.readline(MAX_ROW_BYTES)
    except DAMAGE:
        return False  # met again, and reported, when the rows are read
    return second.lstrip().startswith(b"{") and isinstance(parse(first), dict)


_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.DOTALL)
_LONGEST = 12
"""Bytes of the longest escape, two halves of a pair."""


class _Whole:
    """A stream of JSON in which half a surrogate pair is a NUL, for which its row is refused.

    The parser would put other characters in its place.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._rest = stream, b""

    def read(self, size: int) -> bytes:
        """About `size` bytes; none only at the end."""
        while True:
            more = self._stream.read(size)
            found = self._rest + more
            cut = len(found)
            if more:  # what may go on in the next piece waits for it
                late = (m.start() for m in _ESCAPE.finditer(found) if m.end() > len(found) - _LONGEST)
                cut = min(next(late, cut), cut - found.endswith(b"\\"))
            self._rest = found[cut:]
            if cut or not more:
                return _ESCAPE.sub(lambda m: b"\\u0000" if m[1] else m[0], found[:cut])


def json_array(stream: Stream) -> Iterator[Row]:
    """Rows of a JSON array, or of the one array that is a field of a top-level object.

    Raises:
        InputRefused: the top level is neither, or the object has two arrays.
        ijson.JSONError: the text is not JSON from some point on.
    """
    events = cast("Iterator[tuple[str, Any]]", ijson.basic_parse(_Whole(stream), use_float=True))
    opened = next(events, ("nothing", None))[0]
    if opened == "start_array":
        yield from _elements(events, stream)
        return
    if opened != "start_map":
        raise InputRefused(f"top level is {opened}; expected an array of rows, or an object with one array")
    field, found = "", ""
    depth = 1
    for event, value in events:
        if event == "map_key" and depth == 1:
            field = value
        if event == "start_array" and depth == 1:
            if found:
                raise InputRefused(f"two arrays, {found!r} and {field!r}; expected one; save the wanted one by itself")
            found = field
            yield from _elements(events, stream)
            continue
        depth += (event in OPENING) - (event in CLOSING)
    if not found:
        raise InputRefused("an object without an array; expected rows in an array; wrap the object in [ ]")


def _elements(events: Iterator[tuple[str, Any]], stream: Stream) -> Iterator[Row]:
    """Elements of the array just opened, up to its end. Too deep ones are passed over without being built."""
    number, depth = 1, 0
    builder: ObjectBuilder | None = ObjectBuilder()
    for event, value in events:
        if depth == 0 and event == "end_array":
            return
        depth += (event in OPENING) - (event in CLOSING)
        if depth > MAX_DEPTH:
            builder = None
        if builder is not None:
            builder.event(event, value)
        if depth == 0:
            yield Row(number, _built(builder), stream.bytes_done)
            stream.mark()
            number += 1
            builder = ObjectBuilder()


def _built(builder: ObjectBuilder | None) -> dict[str, Any] | Refusal:
    if builder is None:
        return Refusal(f"nested deeper than {MAX_DEPTH} levels; expected a flat row; drop it")
    return checked(cast("object", builder.value))
