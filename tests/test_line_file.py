"""Lists that only grow: what a crash or a full disk leaves of a line."""

import errno

import pytest

from preference_data import line_file
from preference_data.line_file import append_line, read_lines
from preference_data.version_list import VersionList


def test_lines_come_back_in_their_order(tmp_path):
    file = tmp_path / "list.jsonl"
    assert read_lines(file) == []
    for value in ("one", "zwölf\nlines"):
        append_line(file, {"value": value})
    assert read_lines(file) == [{"value": "one"}, {"value": "zwölf\nlines"}]


def test_a_line_cut_short_is_left_out_and_makes_room_for_the_next(tmp_path):
    file = tmp_path / "list.jsonl"
    append_line(file, {"value": 1})
    with file.open("a") as out:
        out.write('{"value": 2, "mo')
    assert read_lines(file) == [{"value": 1}]
    append_line(file, {"value": 3})
    assert read_lines(file) == [{"value": 1}, {"value": 3}]


def test_a_last_line_without_an_end_is_a_line(tmp_path):
    file = tmp_path / "list.jsonl"
    file.write_text('{"value": 1}\n{"value": 2}')
    assert read_lines(file) == [{"value": 1}, {"value": 2}]
    append_line(file, {"value": 3})
    assert file.read_text() == '{"value": 1}\n{"value": 2}\n{"value": 3}\n'


def test_the_first_line_cut_short_is_left_out(tmp_path):
    file = tmp_path / "list.jsonl"
    file.write_text('{"val')
    assert read_lines(file) == []
    append_line(file, {"value": 1})
    assert file.read_text() == '{"value": 1}\n'


def test_a_disk_that_fills_up_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "list.jsonl"
    append_line(file, {"value": 1})
    before = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(line_file.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        append_line(file, {"value": 2})
    assert file.read_bytes() == before


def test_versions_outlive_a_line_cut_short(tmp_path):
    versions = VersionList(tmp_path / "versions.jsonl", tmp_path)
    versions.add("one", "a" * 64)
    with (tmp_path / "versions.jsonl").open("a") as out:
        out.write('{"name": "tw')
    assert [entry.name for entry in versions.entries()] == ["one"]
    versions.add("two", "b" * 64)
    assert [entry.name for entry in versions.entries()] == ["one", "two"]
