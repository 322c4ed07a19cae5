"""Hostile and broken files: named with line, field and the way out; good rows are kept; memory stays small."""

import csv
import gzip
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preference_data.errors import InputRefused, PreferenceDataError
from preference_data.importers import import_file
from preference_data.reading import rows
from preference_data.store import Store
from preference_data.streams import MAX_DEPTH, MAX_ROW_BYTES, Refusal, Stream, fault

ROWS = [{"prompt": f"Why {i}?", "chosen": f"Good {i}", "rejected": "Bad"} for i in range(4)]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/prefs.db") as opened:
        yield opened


@pytest.fixture
def attempt(store, tmp_path):
    """Import bytes as a file of that name; gives the report and the refusals."""

    def of(name, content, **options):
        path, rejects = tmp_path / name, tmp_path / "r.jsonl"
        path.write_bytes(content)
        report = import_file(path, store, rejects=rejects, **options)
        noted = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()] if rejects.exists() else []
        assert len(noted) == report.refused
        assert all(note["file"] == name for note in noted)
        return report, [(note["line"], note["reason"]) for note in noted]

    return of


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "a", \n', "not JSON: Expecting property name enclosed in double quotes at column"),
        (b"not json\n", "not JSON: Expecting value at column 1; expected one object per line"),
        (b'{"prompt": "caf\xe9"}\n', "not UTF-8: byte 0xe9 at byte 16; save it as UTF-8"),
        (b"[1, 2]\n", "row is a list; expected an object with named fields"),
        (b'{"prompt": NaN}\n', "not JSON: NaN is no JSON number"),
        (b'{"prompt": 1e999}\n', "holds the number inf; expected finite numbers"),
        (b'{"prompt": "\\ud800"}\n', "holds half of a surrogate pair"),
        (b'{"prompt": "a\\u0000"}\n', "holds a NUL character"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100 + b"\n", f"nested deeper than {MAX_DEPTH} levels"),
        (b"[" * 200_000 + b"]" * 200_000 + b"\n", f"nested deeper than {MAX_DEPTH} levels"),
        (b'{"a": ' + b"9" * 5_000 + b"}\n", "Exceeds the limit"),
    ],
)
def test_a_bad_line_is_refused_and_the_rest_goes_on(attempt, line, reason):
    report, noted = attempt("a.jsonl", LINES[0] + line + LINES[1])
    assert (report.read, report.stored, report.refused, report.stopped) == (3, 2, 1, "")
    assert noted[0][0] == 2
    assert reason in noted[0][1]


FAULTY = {
    "missing": ({"prompt": "a", "rejected": "b"}, "chosen: got nothing; expected text"),
    "null": ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen: got nothing; expected text"),
    "empty": ({"prompt": "a", "chosen": " \n", "rejected": "b"}, "chosen: got empty text; expected text"),
    "boolean": ({"prompt": "a", "chosen": "b", "rejected": False}, "rejected: got boolean False; expected text"),
    "number": ({"prompt": "a", "chosen": 4.5, "rejected": "b"}, "chosen: got number 4.5; expected text"),
    "equal": ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same text"),
    "empty prompt": ({"prompt": "", "chosen": "b", "rejected": "c"}, "prompt: got empty text; expected text"),
    "no messages": ({"prompt": [], "chosen": "b", "rejected": "c"}, "prompt: got list []; expected a list of messages"),
    "unknown role": (
        {"prompt": [{"role": "boss", "content": "a"}], "chosen": "b", "rejected": "c"},
        "prompt[0].role: got text 'boss'; expected one of system, user, assistant, tool",
    ),
    "content is a list": (
        {"prompt": [{"role": "user", "content": ["a"]}], "chosen": "b", "rejected": "c"},
        "prompt[0].content: got list ['a']; expected text",
    ),
    "prompt ends with the assistant": (
        {"prompt": [{"role": "assistant", "content": "a"}], "chosen": "b", "rejected": "c"},
        "prompt: ends with an assistant turn",
    ),
    "answer of a user": (
        {"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"},
        "chosen: got text 'user'; expected an assistant turn at the end",
    ),
    "prompts differ": (
        {
            side: [{"role": "user", "content": side}, {"role": "assistant", "content": f"{side}!"}]
            for side in ("chosen", "rejected")
        },
        "prompts differ: the two sides part at turn 1, before their answers",
    ),
    "no common beginning": ({"chosen": "one", "rejected": "two"}, "prompts differ: chosen and rejected share no"),
}


@pytest.mark.parametrize(("row", "reason"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_field_is_named(attempt, row, reason):
    report, noted = attempt("a.jsonl", LINES[0] + json.dumps(row).encode() + b"\n" + LINES[1])
    assert (report.stored, report.refused) == (2, 1)
    assert noted[0][0] == 2
    assert reason in noted[0][1]


TRANSCRIPTS = {
    "other questions": ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: d", "prompts differ: "),
    "twice the assistant": (
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c",
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant: d",
        "chosen: turn 3 is the assistant's again",
    ),
    "label in the answer": (
        "\n\nHuman: a\n\nAssistant: Human: b",
        "\n\nHuman: a\n\nAssistant: c",
        "chosen: the answer holds the turn label 'Human:'",
    ),
    "no answer": (
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c",
        "\n\nHuman: a\n\nAssistant: d",
        "chosen: ends with a Human turn",
    ),
    "empty answer": ("\n\nHuman: a\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: d", "chosen: got empty text"),
    "text before": ("x\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: d", "chosen: begins 'x"),
}


@pytest.mark.parametrize(("chosen", "rejected", "reason"), TRANSCRIPTS.values(), ids=TRANSCRIPTS)
def test_a_faulty_transcript_is_refused(attempt, chosen, rejected, reason):
    row = {"chosen": chosen, "rejected": rejected}
    with_good = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, row]
    report, noted = attempt("a.jsonl", b"".join(json.dumps(r).encode() + b"\n" for r in with_good), format="hh")
    assert (report.stored, noted[0][0]) == (1, 2)
    assert reason in noted[0][1]


def test_a_cut_off_answer_after_a_transcript_is_refused(attempt):
    row = {"query": "Human: a", "chosen": "Assistant: b", "rejected": "2. second point"}
    report, noted = attempt("a.jsonl", json.dumps(row).encode())
    assert report.stored == 0
    assert noted[0][1].startswith("rejected: lacks the prefix 'Assistant:' and begins '2. second point'")


def test_rows_before_the_cut_of_a_gzip_file_are_kept(attempt):
    many = [json.dumps({"prompt": f"Why {i} {hash_of(i)}?", "chosen": "a", "rejected": "b"}) for i in range(3_000)]
    packed = gzip.compress("\n".join(many).encode())
    report, noted = attempt("a.jsonl.gz", packed[: len(packed) // 2])
    assert 1_000 < report.stored < 2_000
    assert (report.read, report.refused) == (report.stored, 1)
    last = report.stored
    reason = f"the gzip stream is cut off; read up to row {last}, nothing after it; get a complete copy"
    assert noted[0][0] == last + 1
    assert noted[0][1].startswith(reason)
    assert report.stopped.startswith(reason)


def hash_of(i):
    """Digits that do not compress well."""
    return pow(3, i + 500, 10**40 + 7)


def test_a_damaged_gzip_file_keeps_what_came_before(attempt):
    packed = bytearray(gzip.compress(b"".join(LINES)))
    packed[-8] ^= 1  # the checksum at the end
    report, noted = attempt("a.jsonl.gz", bytes(packed))
    assert (report.read, report.stored) == (4, 4)
    assert "the gzip stream is damaged (CRC check failed" in noted[0][1]


def test_a_broken_json_array_keeps_what_came_before(attempt):
    whole = json.dumps(ROWS).encode()
    report, noted = attempt("a.json", whole[:-30])
    assert (report.read, report.stored) == (3, 3)
    assert noted[0][0] == 4
    assert "not JSON from there on" in noted[0][1]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1 << 16])
def test_half_a_surrogate_pair_in_an_array_is_refused_and_whole_ones_are_read(attempt, monkeypatch, size):
    monkeypatch.setattr(Stream, "read", small_pieces(Stream.read, size))
    halves = [r"hi \ud83d there", r"\ude00", r"\\\ud83d", r"\ud83d\n"]
    wholes = [r"\ud83d\ude00", r"\\ud83d", r"\u00e9"]
    rows = [json.dumps(ROWS[0]).replace(ROWS[0]["prompt"], text) for text in (*halves, *wholes)]
    report, noted = attempt("a.json", f"[{','.join(rows)}]".encode())
    assert [line for line, _ in noted] == [1, 2, 3, 4]
    assert all("half of a surrogate pair" in reason for _, reason in noted)
    assert report.read == 7
    assert report.stored == 3


def small_pieces(read, size):
    return lambda stream, wanted: read(stream, min(wanted, size))


def test_deep_nesting_in_an_array_is_refused_alone(attempt):
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    report, noted = attempt("a.json", b"[" + LINES[0] + b"," + deep + b"," + LINES[1] + b"]")
    assert (report.stored, report.refused) == (2, 1)
    assert noted == [(2, f"nested deeper than {MAX_DEPTH} levels; expected a flat row; drop it")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: no rows; expected at least one; check that the download is complete"),
        ("a.jsonl", b"\n \n", "a.jsonl: no rows"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: no rows"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "a.jsonl.gz: no rows"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:12], "a.jsonl.gz: the gzip stream is cut off"),
        ("a.json", b"[]", "a.json: no rows"),
        ("a.json", b"", "a.json: not JSON from there on"),
        ("a.json", b"17", "a.json: top level is number; expected an array of rows"),
        ("a.json", b'{"a": 1}', "a.json: an object without an array"),
        ("a.csv", b"prompt,chosen\n", "a.csv: no rows"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv: header: column 'a' occurs twice"),
        ("a.txt", b"x", r"unknown kind of file '.txt'; known are .jsonl, .json, .csv \(each also .gz\), .parquet"),
        ("a", b"x", "unknown kind of file 'without an ending'"),
        ("a.zip", b"PK", "unknown kind of file '.zip'"),
        ("a.jsonl", "{}".encode("utf-16"), "a.jsonl: UTF-16 text; expected UTF-8; save the file as UTF-8"),
        ("a.parquet", b"PAR1 or not", "a.parquet: no readable Parquet"),
        ("a.jsonl", b"x\ny\n", "a.jsonl: none of the first 2 rows is readable; line 1: not JSON"),
    ],
)
def test_a_file_without_anything_to_import_is_refused(attempt, name, content, message):
    with pytest.raises(InputRefused, match=message):
        attempt(name, content)


def test_a_missing_file_and_a_folder_of_something_else_are_named(store, tmp_path):
    with pytest.raises(InputRefused, match="no such file or folder"):
        import_file(tmp_path / "none.jsonl", store, rejects=tmp_path / "r.jsonl")
    with pytest.raises(InputRefused, match=r"not a folder written by datasets.save_to_disk"):
        import_file(tmp_path, store, rejects=tmp_path / "r.jsonl")


def test_an_object_with_two_arrays_keeps_the_first_and_says_so(attempt):
    content = json.dumps({"data": ROWS[:2], "more": ROWS[2:]}).encode()
    report, noted = attempt("a.json", content)
    assert report.stored == 2
    assert "two arrays, 'data' and 'more'; expected one" in noted[0][1]


def test_csv_faults_are_refused_row_by_row(attempt):
    content = b'prompt,chosen,rejected\r\n"multi\r\nline",b,c\r\ntoo,few\r\ncaf\xe9,b,c\r\n"q" x,b,c\r\nlast,b,c\r\n'
    report, noted = attempt("a.csv", content)
    assert (report.read, report.stored) == (5, 2)
    assert [line for line, _ in noted] == [4, 5, 6]  # the first record takes lines 2 and 3
    reasons = [reason for _, reason in noted]
    assert reasons[0].startswith("2 cells; expected 3 as in the header")
    assert reasons[1] == "not UTF-8; save the file as UTF-8"
    assert reasons[2].startswith("not CSV: ")


def test_long_csv_cells_are_read(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["prompt"], ["x" * 300_000]])  # over the csv module's own limit
    assert [len(row.value["prompt"]) for row in rows(path)] == [300_000]


def test_a_cell_no_json_has_is_refused(tmp_path):
    table = pa.table({"a": [b"bytes"], "b": [float("nan")]})
    pq.write_table(table.select(["a"]), tmp_path / "a.parquet")
    pq.write_table(table.select(["b"]), tmp_path / "b.parquet")
    assert [row.value.reason for row in rows(tmp_path / "a.parquet")] == [
        "holds a bytes; expected text, numbers, lists; drop the column"
    ]
    assert "holds the number nan" in next(rows(tmp_path / "b.parquet")).value.reason


def test_fault_finds_nothing_in_an_ordinary_row():
    nest = "x"
    for _ in range(MAX_DEPTH):
        nest = [nest]
    assert fault(nest) == ""
    assert fault([nest]) != ""
    assert fault({"a": [1, 2.5, None, True, "é😀"]}) == ""


# --- sizes: run apart, for the memory they may take --------------------------------------------------------------

LIMITED = """
import json, resource, sys
from pathlib import Path
from preference_data.reading import rows
from preference_data.streams import Refusal
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seen = [[row.line, row.value.reason if isinstance(row.value, Refusal) else "good"] for row in rows(Path(sys.argv[1]))]
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(json.dumps([seen[:3] + seen[-1:], len(seen), grown]))
"""


def apart(path):
    """First three rows and the last, how many, and by how many MiB the process grew while reading."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1], timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_line_of_200_mb_is_refused_without_being_loaded(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as out:
        out.write(LINES[0])
        out.write(b'{"prompt": "')
        for _ in range(200):
            out.write(b"x" * 2**20)
        out.write(b'"}\n' + LINES[1])
    seen, count, grown = apart(path)
    path.unlink()
    assert count == 3
    assert [line for line, _ in seen[:3]] == [1, 2, 3]
    assert [seen[0][1], seen[2][1]] == ["good", "good"]
    assert seen[1][1].startswith(f"line of {200 * 2**20 + 15:,} bytes; expected at most {MAX_ROW_BYTES:,}")
    assert grown < 100


def test_deep_nesting_takes_no_memory(tmp_path):
    path = tmp_path / "a.json"
    deep = 2_000_000
    path.write_bytes(b"[" + LINES[0] + b"," + b"[" * deep + b"]" * deep + b"," + LINES[1] + b"]")
    seen, count, grown = apart(path)
    assert (count, [seen[0], seen[2]]) == (3, [[1, "good"], [3, "good"]])
    assert seen[1][1].startswith(f"nested deeper than {MAX_DEPTH} levels")
    assert grown < 100


def test_a_huge_element_of_an_array_ends_the_file_but_not_the_memory(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as out:
        out.write(b"[" + LINES[0] + b', {"prompt": "')
        for _ in range(100):
            out.write(b"x" * 2**20)
        out.write(b'"}]')
    seen, count, grown = apart(path)
    path.unlink()
    assert (count, seen[0]) == (2, [1, "good"])
    assert f"a row is longer than {MAX_ROW_BYTES:,} bytes" in seen[1][1]
    assert "save the file as .jsonl" in seen[1][1]
    assert grown < 100


def test_a_decompression_bomb_is_stopped(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as out:
        for _ in range(100):
            out.write(LINES[0] * (2**20 // len(LINES[0])))
    assert path.stat().st_size < 600_000  # 100 MiB in it
    seen, _, grown = apart(path)
    assert seen[0] == [1, "good"]
    assert "decompresses to more than 200 times its size" in seen[-1][1]
    assert "read up to row" in seen[-1][1]
    assert grown < 100


def test_a_large_json_array_is_streamed(tmp_path):
    path = tmp_path / "a.json"
    row = json.dumps({"prompt": "p" * 10_000, "chosen": "good", "rejected": "bad"}).encode()
    with path.open("wb") as out:
        out.write(b"[" + b",".join([row] * 8_000) + b"]")
    size = path.stat().st_size
    seen, count, grown = apart(path)
    path.unlink()
    assert (count, seen[-1]) == (8_000, [8_000, "good"])
    assert grown < size / 2**20 / 2  # 80 MB of file


def test_a_parquet_bomb_is_refused_before_it_unpacks(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array(["x" * 1_000_000] * 100)
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(InputRefused, match=r"a.parquet: unpacks to .* bytes, over 200 times its size"):
        next(rows(path))


def test_the_rejects_never_overwrite_the_file(store, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES[0])
    with pytest.raises(InputRefused, match="a.jsonl: the rejects would overwrite it"):
        import_file(path, store, rejects=path)
    assert path.read_bytes() == LINES[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_rejects_is_named(store, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES[0] + b"x\n")
    with pytest.raises(PreferenceDataError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        import_file(path, store, rejects=Path("/dev/full"))
    assert Path("/dev/full").exists()


def as_file(kind, content):
    """Rows as the bytes of a kind of file."""
    match kind:
        case "jsonl":
            return b"".join(LINES)
        case "json":
            return json.dumps(ROWS).encode()
        case "csv":
            return b"prompt,chosen,rejected\r\n" + b"".join(b"a,b,c\r\n" for _ in ROWS)
        case "jsonl.gz":
            return gzip.compress(b"".join(LINES), mtime=0)
        case _:
            pq.write_table(pa.Table.from_pylist(ROWS), content)
            return content.read_bytes()


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "jsonl.gz", "parquet"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_refusal_and_never_another_error(tmp_path, kind, data):
    path = tmp_path / f"a.{kind}"
    whole = as_file(kind, path)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 8)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:])
    try:
        found = list(rows(path))
    except InputRefused:
        return
    assert [row.line for row in found] == sorted(row.line for row in found)
    assert all(isinstance(row.value, dict) or row.value.reason for row in found)


def test_refusals_are_values_not_exceptions(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x\n" + LINES[0])
    first, second = rows(path)
    assert isinstance(first.value, Refusal)
    assert (second.line, second.value, second.bytes_done) == (2, ROWS[0], path.stat().st_size)
