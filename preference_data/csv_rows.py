"""Rows of CSV files. Cells stay text: a CSV file does not say what is a number."""

import csv
from collections.abc import Iterator
from typing import Self

from preference_data.errors import InputRefused
from preference_data.streams import MAX_ROW_BYTES, Refusal, Row, Stream, fault, lines


class _Text:
    """Lines as `csv.reader` wants them, with their ends.

    Undecodable bytes become lone surrogates, so that only the record that holds them is refused.
    """

    def __init__(self, stream: Stream) -> None:
        self._lines = lines(stream)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        content = next(self._lines).content
        if isinstance(content, Refusal):
            raise csv.Error(content.reason)
        return content.decode("utf-8", "surrogateescape")


def csv_rows(stream: Stream) -> Iterator[Row]:
    """Rows of a CSV file with a header line.

    Raises:
        InputRefused: the header is unreadable or names a column twice.
    """
    csv.field_size_limit(MAX_ROW_BYTES)  # the default, 131,072 characters, is shorter than a long conversation
    reader = csv.reader(_Text(stream), strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InputRefused(f"header: {error}") from error
    if header is None:
        return
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputRefused(f"header: column {twice[0]!r} occurs twice; expected each once; rename one")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Row(line, Refusal(f"not CSV: {error}; correct the line"), stream.bytes_done)
            continue
        if cells is None:
            return
        if cells:
            yield Row(line, _row(header, cells), stream.bytes_done)


def _row(header: list[str], cells: list[str]) -> dict[str, str] | Refusal:
    if len(cells) != len(header):
        return Refusal(f"{len(cells)} cells; expected {len(header)} as in the header; quote cells that hold commas")
    row = dict(zip(header, cells, strict=True))
    if reason := fault(row):
        damaged = any("\udc80" <= character <= "\udcff" for cell in cells for character in cell)
        return Refusal("not UTF-8; save the file as UTF-8") if damaged else Refusal(reason)
    return row
