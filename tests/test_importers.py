"""Every format by hand, mapping files, sniffing, and the real files with their known faults."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import EntryPoint

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from preference_data import queries
from preference_data.errors import InputRefused, RowRefused
from preference_data.importers import (
    Importer,
    Nowhere,
    Source,
    import_file,
    importers,
    importing,
    named,
    registry,
    sniff,
)
from preference_data.mapping import load, samples
from preference_data.records import Imported, Message, Pairwise, Thumb, Verdict
from preference_data.store import Store
from preference_data.streams import Row

AT = datetime(2026, 1, 2, tzinfo=UTC)
SOURCE = Source("mini", AT)
USER = {"role": "user", "content": "Why?"}
ASKED = (Message("user", "Why?"),)


def says(text):
    return {"role": "assistant", "content": text}


def one(format_name, row):
    """The single comparison and judgement a row becomes."""
    (entry,) = named(format_name).convert(row, SOURCE)
    (judgement,) = entry.judgements
    assert judgement.comparison == entry.comparison.key
    return entry.comparison, judgement


def refusals(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def answers(comparison):
    return [completion.text for completion in comparison.completions]


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/prefs.db") as opened:
        yield opened


@pytest.fixture
def write(tmp_path):
    def to(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return to


# --- formats ------------------------------------------------------------------------------------------------------

PAIR_ROWS = {
    "plain, explicit prompt": ("trl-preference", {"prompt": "Why?", "chosen": "Good", "rejected": "Bad"}),
    "conversational, explicit prompt": (
        "trl-preference",
        {"prompt": [USER], "chosen": [says("Good")], "rejected": [says("Bad")]},
    ),
    "conversational, implicit prompt": (
        "trl-preference",
        {"chosen": [USER, says("Good")], "rejected": [USER, says("Bad")]},
    ),
    "prompt repeated in both sides": (
        "trl-preference",
        {"prompt": "Why?", "chosen": [USER, says("Good")], "rejected": [USER, says("Bad")]},
    ),
    "HH": ("hh", {"chosen": "\n\nHuman: Why?\n\nAssistant: Good", "rejected": "\n\nHuman: Why?\n\nAssistant: Bad"}),
    "query, plain": ("query-chosen-rejected", {"query": "Why?", "chosen": "Good", "rejected": "Bad"}),
    "query, transcript": (
        "query-chosen-rejected",
        {"query": "Human: Why?", "chosen": "Assistant: Good", "rejected": "Assistant: Bad"},
    ),
    "ShareGPT": (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Good"},
            "rejected": {"from": "gpt", "value": "Bad"},
        },
    ),
    "alpaca": ("alpaca", {"instruction": "Why?", "input": "", "chosen": "Good", "rejected": "Bad"}),
    "OpenAI": (
        "openai",
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [says("Good")],
            "non_preferred_output": [says("Bad")],
        },
    ),
}


@pytest.mark.parametrize(("format_name", "row"), PAIR_ROWS.values(), ids=PAIR_ROWS)
def test_a_pair_of_any_format_becomes_the_same_records(format_name, row):
    comparison, judgement = one(format_name, row)
    assert comparison.prompt.messages == ASKED
    assert answers(comparison) == ["Good", "Bad"]
    assert {c.origin for c in comparison.completions} == {Imported("mini")}
    assert (judgement.opinion, judgement.annotator) == (Pairwise(Verdict.FIRST), "import:mini")
    assert (judgement.at, judgement.extra) == (AT, {})
    assert sniff([Row(1, row, 0)], "mini.jsonl").name == format_name


def test_implicit_plain_prompt_is_what_both_begin_with():
    # the texts part after "It is ", whose last blank goes to the answers
    comparison, _ = one("trl-preference", {"chosen": "Sky? It is blue.", "rejected": "Sky? It is red."})
    assert comparison.prompt.messages == (Message("user", "Sky? It is"),)
    assert answers(comparison) == [" blue.", " red."]


def test_implicit_plain_prompt_is_split_as_trl_splits_it():
    data_utils = pytest.importorskip("trl.data_utils")
    row = {"chosen": "The sky is blue.", "rejected": "The sky is green, mostly."}
    split = data_utils.extract_prompt(row)
    comparison, _ = one("trl-preference", row)
    assert [comparison.prompt.messages[0].content, *answers(comparison)] == [
        split["prompt"], split["chosen"], split["rejected"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format_name", "row"),
    [
        ("trl-unpaired", {"prompt": "Why?", "completion": "Good", "label": True}),
        ("trl-unpaired", {"prompt": [USER], "completion": [says("Good")], "label": True}),
        ("messages-label", {"messages": [USER, says("Good")], "label": True}),
    ],
)
def test_unpaired_rows_become_thumbs(format_name, row):
    comparison, judgement = one(format_name, row)
    assert (comparison.prompt.messages, answers(comparison)) == (ASKED, ["Good"])
    assert judgement.opinion == Thumb(up=True)
    assert one(format_name, row | {"label": False})[1].opinion == Thumb(up=False)
    assert sniff([Row(1, row, 0)], "mini.jsonl").name == format_name


def test_alpaca_history_and_input():
    row = {"instruction": "Why?", "input": "this", "system": "Be kind", "history": [["Hi", "Hello"]]}
    comparison, judgement = one("alpaca", row | {"chosen": "Good", "rejected": "Bad", "id": 3})
    said = [Message("system", "Be kind"), Message("user", "Hi"), Message("assistant", "Hello")]
    assert comparison.prompt.messages == (*said, Message("user", "Why?\nthis"))
    assert judgement.extra == {"id": 3}


def test_a_prompt_under_an_unknown_name_is_not_taken_for_none():
    row = {"question": "Why?", "chosen": "The sky is blue", "rejected": "The sky is red"}
    with pytest.raises(InputRefused, match="unknown format with the fields chosen, question, rejected"):
        sniff([Row(1, row, 0)], "a.jsonl")


def test_hh_keeps_the_turns_in_order():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    comparison, _ = one("hh", {"chosen": f"{start} Good\n\nand long", "rejected": f"{start} Bad"})
    assert comparison.prompt.messages == (Message("user", "Hi"), Message("assistant", "Hello"), *ASKED)
    assert answers(comparison) == ["Good\n\nand long", "Bad"]


ULTRA = {
    "prompt": "Why?",
    "prompt_id": "p1",
    "messages": [USER, says("Good")],
    "chosen": [USER, says("Good")],
    "rejected": [USER, says("Bad")],
    "score_chosen": 8.0,
    "score_rejected": 6.0,
}


def test_ultrafeedback_keeps_scores_and_takes_equal_ones_as_a_tie():
    comparison, judgement = one("ultrafeedback", ULTRA)
    assert comparison.prompt.messages == ASKED
    assert judgement.opinion == Pairwise(Verdict.FIRST)
    assert judgement.extra == {"prompt_id": "p1", "score_chosen": 8.0, "score_rejected": 6.0}
    assert one("ultrafeedback", ULTRA | {"score_rejected": 8})[1].opinion == Pairwise(Verdict.TIE)
    assert sniff([Row(1, ULTRA, 0)], "mini.jsonl").name == "ultrafeedback"
    with pytest.raises(RowRefused, match="score_chosen 8.0 is below score_rejected 9"):
        one("ultrafeedback", ULTRA | {"score_rejected": 9})


HELPSTEER = {
    "domain": "code",
    "language": "python",
    "context": [USER],
    "response1": "Good",
    "response2": "Bad",
    "overall_preference": -2,
    "individual_preference": [
        {"score": -3, "reasoning": "clear", "feedback1": "short"},
        {"score": 0, "reasoning": "same"},
        {"score": 1, "reasoning": None},
    ],
}


def test_helpsteer3_keeps_every_annotator():
    (entry,) = named("helpsteer3").convert(HELPSTEER, SOURCE)
    assert entry.comparison.slices == {"domain": "code", "language": "python"}
    # -3: first, much; 0: tie; 1: second, slightly
    assert [j.opinion for j in entry.judgements] == [
        Pairwise(Verdict.FIRST, 3), Pairwise(Verdict.TIE), Pairwise(Verdict.SECOND, 1)
    ]  # fmt: skip
    assert [j.annotator for j in entry.judgements] == [f"import:mini:{i}" for i in (1, 2, 3)]
    assert [j.rationale for j in entry.judgements] == ["clear", "same", ""]
    assert entry.judgements[0].extra == {"overall_preference": -2, "feedback1": "short"}


def test_helpsteer3_without_individuals_takes_the_overall_score():
    _, judgement = one("helpsteer3", HELPSTEER | {"individual_preference": []})
    assert (judgement.opinion, judgement.extra) == (Pairwise(Verdict.FIRST, 2), {})


ARENA = {
    "question_id": "q",
    "model_a": "apple",
    "model_b": "pear",
    "winner": "model_b",
    "judge": "arena_user_7",
    "conversation_a": [USER, says("Bad")],
    "conversation_b": [USER, says("Good")],
    "language": "English",
    "tstamp": 1682351591.1322,
}


@pytest.mark.parametrize(
    ("winner", "verdict"),
    [("model_a", "first"), ("model_b", "second"), ("tie", "tie"), ("tie (bothbad)", "neither")],
)
def test_arena_votes(winner, verdict):
    comparison, judgement = one("arena", ARENA | {"winner": winner})
    assert [c.origin.policy for c in comparison.completions] == ["apple", "pear"]
    assert judgement.opinion.verdict == verdict
    assert (judgement.annotator, judgement.extra) == ("arena_user_7", {"question_id": "q"})
    assert judgement.at == datetime.fromtimestamp(1682351591.1322, UTC)
    assert comparison.slices == {"language": "English"}


def test_arena_votes_over_several_turns_have_no_common_prompt():
    more = [USER, says("one"), USER, says("Good")], [USER, says("two"), USER, says("Bad")]
    with pytest.raises(RowRefused, match="prompts differ: the two sides part at turn 2"):
        one("arena", ARENA | {"conversation_a": more[0], "conversation_b": more[1]})


def test_what_no_field_carries_is_kept_word_for_word():
    weighed = says("Good") | {"weight": 1}
    given = {"messages": [USER], "tools": [{"type": "function"}]}
    row = {"input": given, "preferred_output": [weighed], "non_preferred_output": [says("Bad")], "id": 7}
    _, judgement = one("openai", row)
    assert judgement.extra == {"input": {"tools": [{"type": "function"}]}, "preferred_output": [weighed], "id": 7}


# --- finding the format --------------------------------------------------------------------------------------------


def test_faulty_rows_among_good_ones_do_not_mislead_the_sniffing():
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    first = [Row(1, {"chosen": "no label", "rejected": ""}, 0), Row(2, good, 0), Row(3, good, 0)]
    assert sniff(first, "mini.jsonl").name == "hh"


def test_unknown_fields_name_the_formats_and_the_way_out(write, store, tmp_path):
    with pytest.raises(InputRefused, match=r"mini.jsonl: unknown format with the fields a, b; known .*arena.*mapping"):
        import_file(write("mini.jsonl", [{"b": 1, "a": 2}]), store, rejects=tmp_path / "r.jsonl")


def test_unknown_format_name_lists_the_known(write, store, tmp_path):
    with pytest.raises(InputRefused, match="unknown format 'trl'; known formats: .*trl-preference"):
        import_file(write("mini.jsonl", [{}]), store, rejects=tmp_path / "r.jsonl", format="trl")


def test_importers_of_installed_packages_are_found_and_come_first(monkeypatch):
    point = EntryPoint("mine", "test_entry:MINE", registry.ENTRY_POINTS)
    mine = Importer("mine", lambda row: "chosen" in row, lambda row, source: [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: mine)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.ENTRY_POINTS else [])
    assert list(importers())[0] == "mine"
    assert sniff([Row(1, {"chosen": "a", "rejected": "b"}, 0)], "x.jsonl") is mine
    clash = Importer("openai", mine.sniff, mine.convert)
    monkeypatch.setattr(EntryPoint, "load", lambda self: clash)
    with pytest.raises(InputRefused, match="format 'openai' comes along and from a package"):
        importers()


# --- files of every kind -------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"Why {i}?", "chosen": "Good, “really”", "rejected": "Bad,\nvery"} for i in range(3)]


def as_csv(rows):
    cells = [[row[key] for key in rows[0]] for row in rows]
    lines = [",".join(f'"{cell}"' for cell in line) for line in [list(rows[0]), *cells]]
    return "\r\n".join(lines) + "\r\n"


@pytest.fixture
def files(tmp_path):
    """The same rows as every kind of file."""
    as_lines = "\n".join(json.dumps(row) for row in ROWS)
    contents = {
        "a.jsonl": as_lines,
        "a.json": json.dumps(ROWS),
        "marked.jsonl": "\ufeff" + as_lines,
        "in-object.json": json.dumps({"version": {"n": [1]}, "data": ROWS, "more": {"x": [1]}}),
        "pretty.json": json.dumps(ROWS, indent=2),
        "lines-called.json": as_lines,
        "a.csv": as_csv(ROWS),
        "marked.csv": "\ufeff" + as_csv(ROWS),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode())
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "folder")
    DatasetDict(train=Dataset.from_list(ROWS[:2]), test=Dataset.from_list(ROWS[2:])).save_to_disk(tmp_path / "splits")
    names = [*contents, *(f"{name}.gz" for name in contents), "a.parquet", "folder", "splits"]
    return [tmp_path / name for name in names]


def test_rows_are_the_same_from_every_kind_of_file(files, store, tmp_path):
    for path in files:
        steps = []
        report = import_file(
            path, store, rejects=tmp_path / "r.jsonl", progress=lambda *step, seen=steps: seen.append(step)
        )
        assert (report.read, report.stored + report.duplicates, report.refused) == (3, 3, 0), path.name
        assert report.format == "trl-preference"
        assert steps[-1][0] == steps[-1][1] > 0
    said = {(e.comparison.prompt.text, *answers(e.comparison)) for e in store.entries()}
    assert said == {(f"user: Why {i}?", "Good, “really”", "Bad,\nvery") for i in range(3)}


def test_a_second_import_adds_nothing_even_compressed_or_later(files, store, tmp_path):
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    assert import_file(plain, store, rejects=tmp_path / "r.jsonl", at=AT)[:3] == (3, 3, 0)
    assert import_file(packed, store, rejects=tmp_path / "r.jsonl")[:3] == (3, 0, 3)
    assert store.counts()["judgements"] == 3


def test_ids_and_the_chain_of_an_import_are_the_same_on_every_machine(write, store, tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "now", lambda: AT)
    row = {"prompt": "Où ?", "chosen": "Là.", "rejected": "Ici.", "source_row": 7, "tags": ["é", None]}
    import_file(write("a.jsonl", [*ROWS, row]), store, rejects=tmp_path / "r.jsonl", at=AT)
    last = [*store.entries()][-1]
    assert last.comparison.prompt.key == "526af92ea8ff56f67a60417f7fedc650d5ce102d06e6eed4b3395b95caefe865"
    assert last.comparison.key == "f4f8cd45311919f2098b0b5797b746d7682da39f1ba1d6d0329ef39e6dc74fcc"
    assert last.judgements[0].key == "cd1a9c7138c1ff70ac7d3f9b84865fcc9aaebe818cbca93754f314d5b229e71e"
    assert store.watermark() == (4, "98ae4dedb12573f36c392418701535d2afb848a7ce2e76a97d3f8e3a9f0e9496")
    store.verify_chain()


@pytest.mark.parametrize(
    ("comparisons", "characters", "sizes"),
    [
        (2, 1_000, [2, 1]),
        (100, 1_000, [3]),
        (100, 58, [2, 1]),  # of 6, 14 and 9 characters a row: "Why 0?", "Good, “really”" and "Bad,\nvery"
        (100, 59, [3]),
        (100, 1, [1, 1, 1]),
    ],
)
def test_a_transaction_is_bounded_in_comparisons_and_in_characters(
    write, tmp_path, monkeypatch, comparisons, characters, sizes
):
    monkeypatch.setattr(importing, "BATCH", comparisons)
    monkeypatch.setattr(importing, "BATCH_CHARACTERS", characters)
    taken = []

    class Counting(Nowhere):
        def add(self, entries):
            taken.append(len(list(entries)))
            return super().add(entries)

    import_file(write("a.jsonl", ROWS), Counting(), rejects=tmp_path / "r.jsonl")
    assert taken == sizes


# --- refusals ------------------------------------------------------------------------------------------------------


def test_refused_rows_are_written_down_and_the_rest_goes_on(write, store, tmp_path):
    rows = [ROWS[0], ROWS[1] | {"chosen": True}, ROWS[2], ROWS[0] | {"rejected": ""}, ROWS[0]]
    report = import_file(write("a.jsonl", rows), store, rejects=tmp_path / "rejects" / "r.jsonl")
    assert report == (5, 2, 1, 0, 2, "trl-preference", "")
    noted = refusals(tmp_path / "rejects" / "r.jsonl")
    assert [(n["file"], n["line"]) for n in noted] == [("a.jsonl", 2), ("a.jsonl", 4)]
    assert noted[0]["reason"] == "chosen: got boolean True; expected text; correct the row or drop it"
    assert json.loads(noted[0]["row"]) == rows[1]


def test_an_import_without_refusals_leaves_no_rejects_file(write, store, tmp_path):
    stale = tmp_path / "r.jsonl"
    stale.write_text("of an earlier import")
    import_file(write("a.jsonl", ROWS), store, rejects=stale)
    assert not stale.exists()


def test_strict_stores_nothing_of_the_batch(write, store, tmp_path):
    with pytest.raises(InputRefused, match="a.jsonl, line 2: chosen: got boolean True"):
        import_file(write("a.jsonl", [ROWS[0], ROWS[1] | {"chosen": True}]), store,
                    rejects=tmp_path / "r.jsonl", strict=True)  # fmt: skip
    assert store.counts()["judgements"] == 0


# --- mapping files -------------------------------------------------------------------------------------------------

MAPPING = """
source = "survey"
prompt = ["meta.task", "input?"]
join = "\\n"
first = "texts.0"
second = "response 2"
labels = ["who1", "who2"]
annotator = "rater"
strength = "how"
rationale = "why"
at = "when"
policies = ["models.a", "models.b"]
ignore = ["idx"]

[values]
"-1" = "first"
0 = "skip"
true = "neither"
2 = "second 3"

[slices]
domain = { field = "meta.kind" }
language = "en"
"""
MAPPED = {
    "idx": 4,
    "meta": {"task": "Do it", "kind": "code"},
    "input": "",
    "texts": ["Good"],
    "response 2": "Bad",
    "who1": -1,
    "who2": 2,
    "rater": "ann",
    "how": 2,
    "why": "clear",
    "when": "2026-01-31T12:00:00+01:00",
    "models": {"a": "apple", "b": "pear"},
    "note": "kept",
}


@pytest.fixture
def mapping(tmp_path):
    def to(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return path

    return to


def test_a_mapping_file_says_what_every_field_means(mapping):
    (entry,) = load(mapping(MAPPING)).convert(MAPPED, SOURCE)
    comparison, (first, second) = entry
    assert comparison.prompt.messages == (Message("user", "Do it"),)
    assert answers(comparison) == ["Good", "Bad"]
    assert [c.origin for c in comparison.completions] == [Imported("survey", "apple"), Imported("survey", "pear")]
    assert (comparison.source, comparison.slices) == ("survey", {"domain": "code", "language": "en"})
    assert first.opinion == Pairwise(Verdict.FIRST, 2)  # the strength field
    assert second.opinion == Pairwise(Verdict.SECOND, 3)  # the strength in the value goes before it
    assert [first.annotator, second.annotator] == ["ann:who1", "ann:who2"]
    assert (first.rationale, first.at) == ("clear", datetime(2026, 1, 31, 11, tzinfo=UTC))
    # fields read by a path stay as well, for the path may be only part of them
    assert first.extra == {"note": "kept", "meta": MAPPED["meta"], "texts": ["Good"], "models": MAPPED["models"]}


@pytest.mark.parametrize(("label", "verdict"), [(0, "skip"), (0.0, "skip"), (True, "neither"), ("-1", "first")])
def test_label_values_are_matched_by_how_json_writes_them(mapping, label, verdict):
    (entry,) = load(mapping(MAPPING)).convert(MAPPED | {"who1": label}, SOURCE)
    assert entry.judgements[0].opinion.verdict == verdict


def test_an_unknown_label_names_the_known(mapping):
    with pytest.raises(RowRefused, match=r"who1: got number 7; expected a label the mapping knows \(-1, 0, true, 2\)"):
        load(mapping(MAPPING)).convert(MAPPED | {"who1": 7}, SOURCE)


def test_only_parts_marked_optional_may_be_empty(mapping):
    with pytest.raises(RowRefused, match=r"meta.task: got empty text"):
        load(mapping(MAPPING)).convert(MAPPED | {"meta": {"task": " "}, "input": "x"}, SOURCE)


def test_thumbs_by_mapping(mapping):
    text = 'prompt=["q"]\ncompletion="a"\nlabels=["l"]\n[values]\nyes="up"\nno="down"\n'
    (entry,) = load(mapping(text)).convert({"q": "Why?", "a": "Good", "l": "no"}, SOURCE)
    assert entry.judgements[0].opinion == Thumb(up=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'promt = ["a"]\nprompt = ["a"]\nchosen = "b"\nrejected = "c"',
            "unknown key 'promt'; known keys: prompt, join",
        ),
        ('chosen = "b"\nrejected = "c"', "key 'prompt' is missing"),
        ('prompt = ["a"]\nchosen = "b"', "expected one of: first and second; chosen and rejected; completion"),
        ('prompt = ["a"]\nfirst = "b"\nsecond = "c"', "labels and values go with"),
        (
            'prompt = ["a"]\nfirst = "b"\nsecond = "c"\nlabels = ["l"]\n[values]\n1 = "frist"',
            "values.1: got 'frist'; expected one of first, neither, second, skip, tie",
        ),
        ("prompt = ", "not TOML"),
    ],
)
def test_a_faulty_mapping_file_is_named_with_the_key(mapping, text, message):
    with pytest.raises(InputRefused, match=message) as caught:
        load(mapping(text))
    assert str(caught.value).startswith("mine.toml: ")


def test_mappings_that_come_along_are_found_by_name():
    assert samples() == ["autoj", "llmbar", "pandalm", "personas"]
    with pytest.raises(InputRefused, match="pandas: no such mapping file; give a path, or one of autoj, llmbar"):
        load("pandas")


def test_zero_means_first_in_autoj_and_tie_in_pandalm():
    autoj = {"prompt": "p", "response 1": "a", "response 2": "b", "label": 0, "scenario": "s"}
    pandalm = {"instruction": "i", "input": "", "response1": "a", "response2": "b", "motivation_app": "m"}
    votes = {"annotator1": 0, "annotator2": 1, "annotator3": 2}
    (first,) = load("autoj").convert(autoj, SOURCE)
    (second,) = load("pandalm").convert(pandalm | votes, SOURCE)
    assert [j.opinion.verdict for j in first.judgements] == ["first"]
    assert [j.opinion.verdict for j in second.judgements] == ["tie", "first", "second"]


# --- the real files ------------------------------------------------------------------------------------------------

LLMBAR = {"Natural": 100, "Adversarial_GPTInst": 92, "Adversarial_GPTOut": 47, "Adversarial_Manual": 46,
          "Adversarial_Neighbor": 134}  # fmt: skip
REAL = {
    # name: mapping, (read, stored, duplicates, ties, refused), refusals by kind, all as counted by hand in the files
    "hh-rlhf/harmless-base.jsonl.gz": (
        None, (1156, 1133, 0, 0, 23), {"empty text": 4, "turn label": 17, "again": 2},
    ),
    "hh-rlhf/helpful-base.train.jsonl.gz": (
        None, (2000, 1797, 0, 0, 203),
        {"lacks the prefix": 175, "turn label": 19, "same text": 4, "empty text": 3, "again": 2},
    ),
    "hh-rlhf/helpful-base.test.jsonl.gz": (
        None, (500, 429, 0, 0, 71),
        {"lacks the prefix": 59, "turn label": 6, "empty text": 2, "again": 3, "ends with an assistant": 1},
    ),
    "pandalm-testset/testset-v1.json.gz": (
        "pandalm", (999, 2814, 0, 316, 61), {"empty text": 55, "boolean": 6},
    ),
    "autoj-pairwise/autoj_pairwise.jsonl.gz": (
        "autoj", (1392, 1389, 1, 373, 2), {"empty text": 1, "same text": 1},
    ),
    "llamafactory-demo/dpo_en_demo.json.gz": (None, (300, 295, 5, 0, 0), {}),
    "llamafactory-demo/kto_en_demo.json.gz": (None, (300, 300, 0, 0, 0), {}),
    "personas/risk-averse.jsonl": ("personas", (1000, 1000, 0, 0, 0), {}),
    **{f"llmbar/{name}.json": ("llmbar", (n, n, 0, 0, 0), {}) for name, n in LLMBAR.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files_with_their_known_faults(shared, store, tmp_path, name):
    by_mapping, counts, kinds = REAL[name]
    path, rejects = shared(name), tmp_path / "r.jsonl"
    report = import_file(path, store, rejects=rejects, mapping=by_mapping)
    assert report[:5] == counts
    reasons = [note["reason"] for note in refusals(rejects)]
    assert Counter(kind for reason in reasons for kind in kinds if kind in reason) == Counter(kinds)
    again = import_file(path, store, rejects=rejects, mapping=by_mapping)
    assert (again.stored, again.duplicates) == (0, report.stored + report.duplicates)
