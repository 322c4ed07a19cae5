"""Export and import give the same records back; what the format cannot carry waits in the sidecar."""

import errno
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preference_data.errors import InputRefused, PreferenceDataError
from preference_data.exporters import EXPORTERS, export, exporting
from preference_data.importers import import_file
from preference_data.records import (
    Comparison,
    Completion,
    Imported,
    Judgement,
    Message,
    Pairwise,
    Prompt,
    Ranking,
    Rating,
    Sampled,
    Thumb,
    Verdict,
    Written,
)
from preference_data.sidecar import beside
from preference_data.store import Added, Entry, Store

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


class Kept:
    """Takes what an import stores."""

    def __init__(self):
        self.comparisons, self.judgements = {}, {}

    def add(self, entries):
        for entry in entries:
            self.comparisons[entry.comparison.key] = entry.comparison
            self.judgements |= {judgement.key: judgement for judgement in entry.judgements}
        return Added(0, 0)


def compared(*texts, prompt="Why?", **more):
    completions = tuple(Completion(text, Sampled("p1", 0.7, 0.9, 64, i)) for i, text in enumerate(texts))
    return Comparison(Prompt.of(prompt), completions, "drawn", {"domain": "x"}, **more)


def said(comparison, *opinions, **more):
    return Entry(comparison, tuple(Judgement(comparison.key, f"ann{i}", o, AT, **more) for i, o in enumerate(opinions)))


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def restored(path):
    kept = Kept()
    import_file(path, kept, rejects=path.with_name("rejects.jsonl"))
    assert not path.with_name("rejects.jsonl").exists()
    return kept


# Texts with everything JSON and people can do, lone surrogates, NUL and blank ones included.
texts = st.text(st.characters(codec=None), max_size=8)
answers = texts.filter(str.strip)
names = st.text("abc:é", max_size=4)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | texts
extras = st.dictionaries(texts, leaves | st.lists(leaves, max_size=2), max_size=2)
origins = st.one_of(
    st.builds(Imported, names, names),
    st.builds(Written, names),
    st.builds(Sampled, names, st.floats(0, 2), st.floats(0, 1), st.integers(1, 9), st.integers(0, 9)),
)
turns = st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts)
prompts = st.builds(
    lambda before, last: Prompt((*before, Message("user", last))), st.lists(turns, max_size=2), texts
)  # fmt: skip
pairwise = st.builds(Pairwise, st.sampled_from(Verdict), st.sampled_from([None, 1, 2, 3]))
opinions = {
    1: st.builds(Thumb, st.booleans()),
    2: pairwise | st.builds(Rating, st.tuples(*[st.dictionaries(names, numbers, max_size=1)] * 2)),
    3: st.just(Ranking(((2,), (0, 1)))),
}


@st.composite
def entries(draw):
    size = draw(st.sampled_from([1, 2, 2, 2, 3]))
    completions = tuple(draw(st.builds(Completion, answers, origins)) for _ in range(size))
    comparison = Comparison(draw(prompts), completions, draw(names), draw(st.dictionaries(names, names, max_size=1)))
    judgements = []
    for _ in range(draw(st.integers(0, 3))):
        judgement = Judgement(
            comparison=comparison.key,
            annotator=draw(names),
            opinion=draw(opinions[size]),
            at=draw(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))),  # noqa: DTZ001
            rationale=draw(texts),
            edit=draw(texts),
            flags=tuple(draw(st.lists(names, max_size=1))),
            shown_order=draw(st.sampled_from([(), (1, 0)])),
            guideline=draw(names),
            supersedes=draw(st.sampled_from(["", *(j.key for j in judgements)])),
            extra=draw(extras),
        )
        judgements.append(judgement)
    return Entry(comparison, tuple({j.key: j for j in judgements}.values()))


@pytest.mark.parametrize("name", EXPORTERS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(batch=st.lists(entries(), max_size=4))
def test_export_and_import_restore_the_same_records(tmp_path, name, batch):
    path = tmp_path / "out.jsonl"
    before = Kept()
    before.add(batch)
    report = export(name, batch, path)
    assert report.rows == path.read_bytes().count(b"\n")
    assert report.rows + report.left_out == sum(len(entry.judgements) for entry in batch)
    if report.rows:  # a file without rows is refused as empty
        after = restored(path)
        assert after.judgements == before.judgements
        assert after.comparisons.keys() == before.comparisons.keys()


def test_trl_rows_are_conversational_with_the_winner_first(tmp_path):
    path = tmp_path / "out.jsonl"
    batch = [said(compared("bad", "good"), Pairwise(Verdict.SECOND, 3), Pairwise(Verdict.TIE))]
    assert export("trl-preference", batch, path) == (1, 1)
    assert read(path) == [
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        }
    ]
    kept = restored(path)
    assert {j.key for j in batch[0].judgements} == kept.judgements.keys()
    assert [c.completions for c in kept.comparisons.values()] == [batch[0].comparison.completions]


def test_openai_and_unpaired_rows(tmp_path):
    export("openai", [said(compared("good", "bad"), Pairwise(Verdict.FIRST))], tmp_path / "o.jsonl")
    assert read(tmp_path / "o.jsonl") == [
        {
            "input": {"messages": [{"role": "user", "content": "Why?"}], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": "good"}],
            "non_preferred_output": [{"role": "assistant", "content": "bad"}],
        }
    ]
    export("trl-unpaired", [said(compared("fine"), Thumb(up=True), Thumb(up=False))], tmp_path / "u.jsonl")
    assert [(row["completion"][0]["content"], row["label"]) for row in read(tmp_path / "u.jsonl")] == [
        ("fine", True),
        ("fine", False),
    ]


def test_rows_of_the_other_formats(tmp_path):
    entry = said(compared("good", "bad"), Pairwise(Verdict.SECOND, 2), Pairwise(Verdict.TIE), Pairwise(Verdict.NEITHER))
    rows = {}
    for name in ("hh", "ultrafeedback", "helpsteer3", "arena"):
        export(name, [entry], tmp_path / f"{name}.jsonl")
        rows[name] = read(tmp_path / f"{name}.jsonl")
    assert rows["hh"] == [
        {"chosen": "\n\nHuman: Why?\n\nAssistant: bad", "rejected": "\n\nHuman: Why?\n\nAssistant: good"}
    ]
    assert [(r["prompt"], r["chosen"][-1]["content"], r["score_chosen"]) for r in rows["ultrafeedback"]] == [
        ("Why?", "bad", 2.0), ("Why?", "good", 0.0)]  # fmt: skip
    assert [(r["response1"], r["overall_preference"]) for r in rows["helpsteer3"]] == [("good", 2), ("good", 0)]
    assert [(r["conversation_a"][-1]["content"], r["winner"], r["judge"]) for r in rows["arena"]] == [
        ("good", "model_b", "ann0"), ("good", "tie", "ann1"), ("good", "tie (bothbad)", "ann2")]  # fmt: skip


@pytest.mark.parametrize("given", [{"tools": [{"type": "function"}], "messages": []}, 3, {"tools": []}])
def test_openai_settings_go_into_the_row_and_come_back(tmp_path, given):
    entry = said(compared("good", "bad"), Pairwise(Verdict.FIRST), extra={"input": given})
    assert export("openai", [entry], tmp_path / "o.jsonl") == (1, 0)
    (row,) = read(tmp_path / "o.jsonl")
    assert row["input"]["messages"] == [{"role": "user", "content": "Why?"}]
    assert row["input"]["tools"] == (given["tools"] if isinstance(given, dict) else [])
    assert list(restored(tmp_path / "o.jsonl").judgements.values()) == list(entry.judgements)


def test_a_row_that_would_come_back_changed_is_left_out(tmp_path, monkeypatch):
    def upper(row):
        return json.loads(json.dumps(row).replace("good", "GOOD"))

    faithful = EXPORTERS["openai"]
    monkeypatch.setitem(EXPORTERS, "openai", faithful._replace(row=lambda *given: upper(faithful.row(*given))))
    entry = said(compared("good", "bad"), Pairwise(Verdict.FIRST))
    assert export("openai", [entry], tmp_path / "o.jsonl") == (0, 1)


def test_superseded_and_undecidable_judgements_stay_out_of_the_file(tmp_path):
    comparison = compared("a", "b")
    old = Judgement(comparison.key, "ann", Pairwise(Verdict.FIRST), AT)
    new = Judgement(comparison.key, "ann", Pairwise(Verdict.SECOND), AT, supersedes=old.key)
    same = said(compared("a", "a"), Pairwise(Verdict.FIRST))
    report = export("trl-preference", [Entry(comparison, (old, new)), same], tmp_path / "o.jsonl")
    assert report == (1, 2)
    assert read(tmp_path / "o.jsonl")[0]["chosen"][0]["content"] == "b"


def test_what_a_freeze_sets_aside_is_in_the_sidecar_alone(tmp_path):
    comparison = compared("a", "b")
    kept = Judgement(comparison.key, "ann", Pairwise(Verdict.FIRST), AT)
    aside = [Judgement(comparison.key, who, Pairwise(Verdict.SECOND), AT, flags=(flag,))
             for who, flag in (("bob", "late"), ("eve", "trial"), ("ann", "repeat"))]  # fmt: skip
    assert export("trl-preference", [Entry(comparison, (kept, *aside))], tmp_path / "o.jsonl") == (1, 3)


def test_of_somebody_erased_the_last_word_counts(tmp_path):
    comparison = compared("a", "b")
    old = Judgement(comparison.key, "erased:1", Pairwise(Verdict.FIRST), AT)
    new = Judgement(comparison.key, "erased:1", Pairwise(Verdict.SECOND), AT, supersedes="0" * 64)  # its key before
    assert export("trl-preference", [Entry(comparison, (old, new))], tmp_path / "o.jsonl") == (1, 1)
    assert read(tmp_path / "o.jsonl")[0]["chosen"][0]["content"] == "b"


def test_trl_files_load_in_datasets_as_one_type(tmp_path):
    batch = [
        said(compared("good", "bad"), Pairwise(Verdict.FIRST)),
        said(
            Comparison(
                Prompt((Message("system", "Be kind."), Message("user", "Hi"))),
                (Completion("x", Imported("s")), Completion("y", Imported("s"))),
                "s",
            ),
            Pairwise(Verdict.SECOND),
        ),
    ]
    export("trl-preference", batch, tmp_path / "o.jsonl")
    loaded = load_dataset("json", data_files=str(tmp_path / "o.jsonl"), split="train", cache_dir=str(tmp_path))
    assert [len(row["prompt"]) for row in loaded] == [1, 2]
    assert set(loaded.column_names) == {"prompt", "chosen", "rejected"}


def test_a_store_goes_through_a_file_into_another_store(tmp_path):
    batch = [said(compared("a", str(i)), Pairwise(Verdict.FIRST), rationale="why") for i in range(5)]
    with Store.open(f"sqlite:///{tmp_path}/one.db") as one, Store.open(f"sqlite:///{tmp_path}/two.db") as two:
        one.add(batch)
        export("openai", one.entries(superseded=True), tmp_path / "o.jsonl")
        report = import_file(tmp_path / "o.jsonl", two, rejects=tmp_path / "r.jsonl")
        assert (report.read, report.stored, report.format) == (5, 5, "openai")
        assert list(two.entries(superseded=True)) == list(one.entries(superseded=True))
        again = import_file(tmp_path / "o.jsonl", one, rejects=tmp_path / "r.jsonl")
        assert (again.stored, again.duplicates) == (0, 5)


def test_a_file_changed_since_the_export_is_refused_until_the_sidecar_is_gone(tmp_path):
    path = tmp_path / "o.jsonl"
    export("trl-preference", [said(compared("good", "bad"), Pairwise(Verdict.FIRST))], path)
    path.write_text(path.read_text("utf-8").replace("good", "better"), "utf-8")
    with pytest.raises(InputRefused, match=r"o.jsonl is not the file o.jsonl.sidecar.jsonl was written for"):
        restored(path)
    beside(path).unlink()
    (judgement,) = restored(path).judgements.values()
    assert judgement.annotator == "import:o"


def test_a_damaged_sidecar_is_named(tmp_path):
    path = tmp_path / "o.jsonl"
    export("trl-preference", [said(compared("good", "bad"), Pairwise(Verdict.FIRST))], path)
    whole = beside(path).read_text("utf-8")
    beside(path).write_text("{}\n", "utf-8")
    with pytest.raises(InputRefused, match=r"o.jsonl.sidecar.jsonl, line 1: no sidecar header"):
        restored(path)
    beside(path).write_text(whole[:-9], "utf-8")
    with pytest.raises(InputRefused, match=r"o.jsonl.sidecar.jsonl, line 2: not JSON"):
        restored(path)


def test_a_full_disk_leaves_what_stood_there(tmp_path, monkeypatch):
    path = tmp_path / "o.jsonl"
    batch = [said(compared("good", "bad"), Pairwise(Verdict.FIRST))]
    export("trl-preference", batch, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting.os, "fsync", full)
    with pytest.raises(PreferenceDataError, match=r"o.jsonl: cannot be written \(No space left on device\)"):
        export("trl-preference", batch * 2, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("name", "file"), [("xml", "o.jsonl"), ("openai", "o.json")])
def test_unknown_formats_and_endings_are_refused(tmp_path, name, file):
    with pytest.raises(InputRefused, match=r"unknown format 'xml'; export knows|ending '.json'; expected .jsonl"):
        export(name, [], Path(tmp_path / file))
