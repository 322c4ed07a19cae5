import dataclasses
import errno
import os
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_data import freeze as frozen
from preference_data import pair_table, queries
from preference_data.duplicates import signature, similar
from preference_data.errors import VersionError
from preference_data.freeze import FreezeRule, freeze
from preference_data.records import (
    Comparison,
    Completion,
    Imported,
    Judgement,
    Opinion,
    Pairwise,
    Prompt,
    Ranking,
    Rating,
    Thumb,
    Verdict,
    digest,
)
from preference_data.splits import split_of
from preference_data.store import Assignment, Entry, Store
from preference_data.versions import load_version
from preference_data.votes import Unused

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
ANY = FreezeRule(min_pairs=0)
FIRST, SECOND = Pairwise(Verdict.FIRST), Pairwise(Verdict.SECOND)


@pytest.fixture
def store_of(tmp_path):
    """Makes a store of entries."""
    opened = []

    def make(*entries):
        opened.append(Store.open(f"sqlite:///{tmp_path}/store{len(opened)}.db"))
        opened[-1].add(entries)
        return opened[-1]

    yield make
    for store in opened:
        store.close()


class Said(NamedTuple):
    """Shorthand for a judgement."""

    opinion: Opinion
    annotator: str = "ann"
    edit: str = ""
    at: datetime = NOON


def entry(prompt, answers, *said, source="file", slices=None):
    completions = tuple(Completion(text, Imported("x")) for text in answers)
    comparison = Comparison(Prompt.of(prompt), completions, source, slices or {})
    judgements = (Judgement(comparison.key, s.annotator, s.opinion, s.at, edit=s.edit) for s in said)
    return Entry(comparison, tuple(judgements))


def prompt_of(split, skip=0):
    """A short prompt whose own cluster falls into a split."""
    found = (text for text in (f"{i * 7919:x}?" for i in range(1000)) if split_of(Prompt.of(text).key) == split)
    return [next(found) for _ in range(skip + 1)][-1]


def test_thumbs_on_answers_to_one_prompt_become_pairs(store_of, tmp_path):
    good, bad = Said(Thumb(up=True)), Said(Thumb(up=False))
    prompt = prompt_of("train", 7)
    nobodys_counterpart = Said(Thumb(up=True), "bo")
    store = store_of(
        entry(prompt, ["good one"], good, nobodys_counterpart),
        entry(prompt, ["bad one"], bad),
        entry(prompt, ["bad too"], bad),
    )
    version, report = freeze(store, ANY, tmp_path / "versions")
    found = version.pairs()
    assert sorted((p.chosen, p.rejected, p.weight) for p in found) == [
        ("good one", "bad one", 0.5),
        ("good one", "bad too", 0.5),
    ]
    assert all(len(p.judgements) == 2 for p in found)
    (alone,) = version.singles()
    assert (alone.completion, alone.good, report.judgements_left_out) == ("good one", True, {})


def test_a_freeze_worked_out_by_hand(store_of, tmp_path):
    train, select, test = prompt_of("train"), prompt_of("select"), prompt_of("test")
    entries = [
        entry(train, ["good", "bad"], Said(Pairwise(Verdict.FIRST, 3)), slices={"domain": "cooking"}),
        entry(select, ["bad", "good"], Said(SECOND), Said(Pairwise(Verdict.TIE), "bob")),
        entry(test, ["x" * 800, "bad"], Said(FIRST, "nina"), Said(FIRST, "bob")),
        entry(prompt_of("test", 1), ["yes", "no"], Said(FIRST), Said(SECOND, "bob")),
        entry(prompt_of("train", 1), ["alone"], Said(Thumb(up=True))),
        entry(prompt_of("train", 2), ["yes", "no"]),  # not judged
    ]
    store = store_of(*entries)
    store.enrol("nina", group="nurses")
    version, report = freeze(store, FreezeRule(), tmp_path / "versions")
    first, second, third = (version.pairs(split)[0] for split in ("train", "select", "test"))
    assert (first.chosen, first.rejected, first.weight, first.strength) == ("good", "bad", 1.0, 3.0)
    assert first.slices == {
        "source": "file", "domain": "cooking", "language": "unknown", "length_band": "short", "annotator_group": "unknown"
    }  # fmt: skip
    assert (second.chosen, second.rejected, second.weight, second.strength) == ("good", "bad", 1.0, None)
    assert (third.weight, third.slices["length_band"], third.slices["annotator_group"]) == (1.0, "long", "nurses")
    assert third.judgements == tuple(sorted(judgement.key for judgement in entries[2].judgements))
    assert (report.comparisons, report.judgements) == (5, 8)
    assert report.judgements_left_out == {Unused.TIE: 1}
    assert report.singles == version.manifest.singles == {"train": 1, "select": 0, "test": 0}
    assert (report.pairs_formed, report.pairs_left_out) == (4, {"contradiction": 1})
    assert (report.pairs_merged, report.pairs_contested, report.bridges) == (0, 0, 0)
    assert (report.clusters, report.largest_cluster) == (3, 1)
    assert report.counts == version.counts == {"train": 1, "select": 1, "test": 1}
    assert (version.manifest.watermark, version.manifest.head) == store.watermark()


def test_votes_from_several_imports_count_together(store_of, tmp_path):
    one = entry("?", ["a", "b"], Said(FIRST), Said(FIRST, "bob"), source="x", slices={"language": "en"})
    flipped = entry("?", ["b", "a"], Said(FIRST, at=NOON + timedelta(days=1)), source="y")
    version, report = freeze(store_of(one, flipped), ANY, tmp_path)
    (pair,) = version.pairs()
    # two against one: (2 - 1) / 3, however new the one is
    assert (pair.chosen, pair.rejected, pair.weight) == ("a", "b", pytest.approx(1 / 3))
    assert (pair.slices["source"], pair.slices["language"]) == ("x+y", "en")
    assert len(pair.judgements) == 3
    assert (report.pairs_merged, report.pairs_contested) == (1, 1)


def test_equal_sides_across_imports_are_dropped_and_counted(store_of, tmp_path):
    entries = [entry("?", ["a", "b"], Said(FIRST), source="x"), entry("?", ["a", "b"], Said(SECOND), source="y")]
    version, report = freeze(store_of(*entries), ANY, tmp_path)
    assert version.pairs() == []
    assert report.pairs_left_out == {"contradiction": 1}


@pytest.mark.parametrize(
    ("rule", "kept", "reason"),
    [
        (FreezeRule(min_pairs=0, sources=("x",)), {"a"}, "source not asked for"),
        (FreezeRule(min_pairs=0, slices={"language": ("fr", "de")}), {"c"}, "slice not asked for"),
    ],
)
def test_only_what_the_rule_asks_for(store_of, tmp_path, rule, kept, reason):
    entries = [
        entry("1?", ["a", "b"], Said(FIRST), source="x", slices={"language": "en"}),
        entry("2?", ["c", "d"], Said(FIRST), source="y", slices={"language": "fr"}),
    ]
    store = store_of(*entries)
    version, report = freeze(store, rule, tmp_path)
    assert {pair.chosen for pair in version.pairs()} == kept
    assert report.judgements_left_out == {reason: 1}
    assert len(list(store.assignments())) == 2


def test_pairs_below_the_least_weight_are_dropped(store_of, tmp_path):
    # (2 - 1) / 3 and 1
    contested = entry("?", ["a", "b"], Said(FIRST), Said(FIRST, "bob"), Said(SECOND, "cy"))
    store = store_of(contested, entry("another?", ["a", "b"], Said(FIRST)))
    _, report = freeze(store, FreezeRule(min_pairs=0, min_weight=1), tmp_path)
    assert report.pairs_left_out == {"weight below the minimum": 1}
    _, report = freeze(store, FreezeRule(min_pairs=0, min_weight=1 / 3), tmp_path)
    assert report.pairs_left_out == {}


def test_a_machine_weighs_what_the_rule_says(store_of, tmp_path):
    """One person against one machine: alike they cancel, at a half the person's quarter is left, at none the machine's out."""
    store = store_of(entry("?", ["a", "b"], Said(FIRST, "ann"), Said(SECOND, "ai:judge")))
    alike = freeze(store, ANY, tmp_path / "alike")
    assert alike.version.pairs() == []
    half = freeze(store, FreezeRule(min_pairs=0, machines=0.5), tmp_path / "half")
    (pair,) = half.version.pairs()
    assert (pair.chosen, pair.weight) == ("a", (1 - 0.5) / 2)
    none = freeze(store, FreezeRule(min_pairs=0, machines=0), tmp_path / "none")
    assert none.version.pairs()[0].weight == 1
    assert none.report.judgements_left_out == {"a machine's": 1}


def test_no_annotator_has_more_than_the_capped_share(store_of, tmp_path):
    many = [entry(f"{i * 7919}?", ["a", "b"], Said(FIRST, "ann")) for i in range(10)]
    few = [entry(f"{i * 104729} and?", ["a", "b"], Said(FIRST, name)) for i, name in enumerate(("bob", "bob", "cy"))]
    rule = FreezeRule(min_pairs=0, annotator_cap=0.5)
    version, report = freeze(store_of(*many, *few), rule, tmp_path)
    # bob 2, cy 1: ann may give 3 of 6
    assert report.judgements_left_out == {"over the annotator's share": 7}
    assert report.pairs_formed == 6
    again, _ = freeze(store_of(*few, *reversed(many)), rule, tmp_path)
    assert again.digest == version.digest


def test_a_cap_that_cannot_be_held_says_how_many_annotators_it_needs(store_of, tmp_path):
    with pytest.raises(
        VersionError, match=r"no annotator of 1 can keep to a share of 0.3; expected at least 4 annotators"
    ):
        freeze(store_of(entry("?", ["a", "b"], Said(FIRST))), FreezeRule(annotator_cap=0.3), tmp_path)


LONG = "The quick brown fox jumps over the lazy dog while seven wizards boil eggs beside the frozen northern lake"
OTHER = "Nothing in this sentence resembles anything said in that one, which is rather the point of writing it"


@pytest.mark.parametrize("wish", ["quickly", "slowly", "with care", "at once"])
def test_near_duplicate_pairs_of_one_cluster_are_kept_once(store_of, tmp_path, wish):
    asked = f"Please judge this: {LONG}, {wish}."
    twins = [
        entry(asked, [LONG, OTHER], Said(FIRST)),
        entry(asked.upper(), [f"{LONG}.", f"{OTHER}!"], Said(FIRST)),
    ]
    others = [
        entry("An altogether different question?", [LONG, OTHER], Said(FIRST)),
        entry(asked, [LONG, "short"], Said(FIRST)),
        entry(asked, ["short", OTHER], Said(FIRST)),
    ]
    apart = [freeze(store_of(each), ANY, tmp_path).version.pairs()[0].key for each in twins]
    version, report = freeze(store_of(*twins, *others), ANY, tmp_path)
    assert report.pairs_left_out == {"near-duplicate pair": 1}
    assert (report.clusters, report.largest_cluster) == (2, 3)
    assert {pair.key for pair in version.pairs()} & set(apart) == {min(apart)}


def test_bridges_stay_out_of_every_version(store_of, tmp_path):
    store = store_of(entry("between two?", ["a", "b"], Said(FIRST)), entry("free?", ["c", "d"], Said(FIRST)))
    one = signature("between two?")
    other = one[:-1] + bytes([one[-1] ^ 1])  # one row of 128 differs
    store.assign([Assignment("1", "1", "train", one), Assignment("2", "2", "test", other)])
    for _ in range(2):
        version, report = freeze(store, ANY, tmp_path)
        assert [pair.prompt for pair in version.pairs()] == [Prompt.of("free?")]
        assert report.bridges == 1
        assert report.pairs_left_out == {"prompt resembles prompts of different splits": 1}


def test_texts_that_no_file_can_hold_are_dropped_and_counted(store_of, tmp_path):
    entries = [entry("1?", ["a", "b \ud800"], Said(FIRST)), entry("2? \udfff", ["a", "b"], Said(FIRST))]
    version, report = freeze(store_of(*entries), ANY, tmp_path)
    assert version.pairs() == []
    assert report.pairs_left_out == {"text is not valid Unicode": 2}


def test_an_earlier_opinion_that_was_taken_back_does_not_count(store_of, tmp_path):
    before = entry("?", ["a", "b"], Said(FIRST))
    (old,) = before.judgements
    after = Entry(before.comparison, (dataclasses.replace(old, opinion=SECOND, supersedes=old.key),))
    version, report = freeze(store_of(before, after), ANY, tmp_path)
    assert [(pair.chosen, pair.weight) for pair in version.pairs()] == [("b", 1.0)]
    assert report.judgements == 1


def test_too_few_pairs_in_a_split_says_what_is_there_and_what_to_do(store_of, tmp_path):
    store = store_of(
        entry(prompt_of("train"), ["a", "b"], Said(FIRST)),
        entry(prompt_of("test"), ["a", "b"], Said(Pairwise(Verdict.TIE))),
    )
    with pytest.raises(
        VersionError,
        match=r"too few pairs: select has 0, test has 0; expected at least 1 .* left out: 1 tie; .* lower min_pairs",
    ):
        freeze(store, FreezeRule(), tmp_path / "versions")
    assert not (tmp_path / "versions").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("annotator_cap", 0),
        ("annotator_cap", 1.1),
        ("machines", 1.5),
        ("min_weight", -0.1),
        ("min_pairs", -1),
        ("max_pairs", -1),
    ],
)
def test_a_rule_out_of_range_names_its_field(name, value):
    with pytest.raises(ValueError, match=f"{name}: got {value}"):
        FreezeRule(**{name: value})


def test_freezing_twice_gives_one_folder(store_of, tmp_path):
    store = store_of(entry("?", ["a", "b"], Said(FIRST)))
    first = freeze(store, ANY, tmp_path / "versions")
    second = freeze(store, ANY, tmp_path / "versions")
    assert second == first
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [first.version.digest]


def test_a_version_names_its_parent_and_its_rule(store_of, tmp_path):
    rule = FreezeRule(min_pairs=0, sources=("file",))
    version, _ = freeze(store_of(entry("?", ["a", "b"], Said(FIRST))), rule, tmp_path, parent="abc")
    manifest = load_version(version.path).manifest
    assert manifest.parent == "abc"
    assert FreezeRule(**manifest.rule | {name: tuple(manifest.rule[name]) for name in ("sources", "without")}) == rule


@pytest.mark.parametrize(
    "rule", [ANY, dataclasses.replace(ANY, max_pairs=4), dataclasses.replace(ANY, annotator_cap=0.5)]
)
def test_texts_read_some_at_a_time_make_the_same_version(store_of, tmp_path, monkeypatch, rule):
    prompts = [*(f"{i * 7919:x}?" for i in range(6)), LONG, f"{LONG}!", OTHER]
    entries = [
        entry(prompt, answers, Said(FIRST, "ann"), Said(opinion, "bob"))
        for prompt in prompts
        for answers, opinion in ((["a", "b"], SECOND), ([LONG, "c"], FIRST), (["c", f"{LONG}."], SECOND))
    ]
    whole = freeze(store_of(*entries), rule, tmp_path / "whole")
    monkeypatch.setattr(frozen, "AT_ONCE", 1)
    monkeypatch.setattr(queries, "VARIABLES", 3)
    monkeypatch.setattr(pair_table, "ROWS_AT_ONCE", 2)
    pieces = freeze(store_of(*reversed(entries)), rule, tmp_path / "pieces")
    assert pieces.version.digest == whole.version.digest
    assert pieces.report == whole.report
    assert list(pieces.version.pairs()) == list(whole.version.pairs())
    pieces.version.verify()


def test_texts_are_read_in_the_order_in_which_they_came(store_of, tmp_path, monkeypatch):
    near = [LONG, f"{LONG}!"]  # of one cluster, so read together when its first is due
    prompts = [prompt_of("train"), near[0], prompt_of("test"), prompt_of("select"), near[1]]
    store = store_of(*(entry(prompt, ["a", f"b {n}"], Said(FIRST)) for n, prompt in enumerate(prompts)))
    read, entries_of = [], store.entries_of
    monkeypatch.setattr(frozen, "AT_ONCE", 1)
    monkeypatch.setattr(
        store, "entries_of", lambda numbers, upto: read.append(sorted(numbers)) or entries_of(numbers, upto)
    )
    freeze(store, ANY, tmp_path / "versions")
    assert read == [[1], [2, 5], [3], [4]]


def test_what_was_erased_is_neither_in_a_version_nor_in_a_split(store_of, tmp_path):
    kept, answer, turn = (entry(f"{name}?", [f"good {name}", "bad"], Said(FIRST)) for name in ("one", "two", "three"))
    store = store_of(kept, answer, turn)
    store.erase_text(digest("good two"), digest("three?"), reason="asked for")
    version, report = freeze(store, ANY, tmp_path)
    assert [pair.chosen for pair in version.pairs()] == ["good one"]
    assert report.comparisons == 1
    assert [each.prompt_key for each in store.assignments()] == [kept.comparison.prompt.key]


def test_a_full_disk_for_temporary_files_freezes_nothing(store_of, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("preference_data.spool.Spool.add", full)
    store = store_of(entry("?", ["a", "b"], Said(FIRST)))
    with pytest.raises(VersionError, match=r"cannot keep temporary files \(No space left on device\); .* TMPDIR"):
        freeze(store, ANY, tmp_path / "versions")
    assert not (tmp_path / "versions").exists()
    assert list(store.assignments()) == []


def test_progress_is_told_by_stage(store_of, tmp_path):
    told = []
    entries = [entry(f"{i * 7919}?", ["a", "b"], Said(FIRST)) for i in range(3)]
    freeze(store_of(*entries), ANY, tmp_path, progress=lambda *step: told.append(step))
    assert told == [
        ("read", 0, 3),
        *(("split", done, 3) for done in (1, 2, 3)),
        ("split", 3, 3),  # placed
        ("read", 3, 3),
        ("duplicates", 3, 3),
        ("write", 0, 3),
        ("write", 3, 3),
    ]


OPINIONS = [
    *(Pairwise(verdict, strength) for verdict in Verdict for strength in (None, 2)),
    Rating(({"help": 1.5}, {"help": 4})),
    Ranking(((1,), (0,))),
]
said = st.builds(
    lambda *parts: Said(*parts[:2], edit=parts[2]),
    st.sampled_from(OPINIONS),
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["", "better"]),
)
entries = st.builds(
    lambda prompt, answers, said, source: entry(prompt, answers, *said, source=source),
    st.sampled_from([f"{i * 7919:x}?" for i in range(6)] + [LONG, f"{LONG}!", OTHER]),
    st.permutations(["one", "two", LONG, f"{LONG}."]).map(lambda answers: answers[:2]),
    st.lists(said, min_size=1, max_size=3),
    st.sampled_from(["x", "y"]),
)


@settings(max_examples=10)
@given(st.lists(entries, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_version_depends_on_no_order_and_everything_is_accounted_for(tmp_path_factory, given_entries, random):
    folder = tmp_path_factory.mktemp("order")
    shuffled = random.sample(given_entries, len(given_entries))
    found = []
    for name, order in (("one", given_entries), ("two", shuffled)):
        with Store.open(f"sqlite:///{folder}/{name}.db") as store:
            for each in order:
                store.add([each])
            found.append(freeze(store, ANY, folder / name))
    (one, report), (two, _) = found
    assert one.digest == two.digest
    assert found[1].report == report
    assert sum(report.counts.values()) + sum(report.pairs_left_out.values()) == report.pairs_formed
    told_apart = {judgement for pair in one.pairs() for judgement in pair.judgements}
    assert len(told_apart) <= report.judgements
    for pair in one.pairs():
        assert 0 < pair.weight <= 1
        assert pair.chosen.strip() != pair.rejected.strip()


@settings(max_examples=10)
@given(st.lists(st.lists(entries, min_size=1, max_size=6), min_size=2, max_size=4))
def test_over_any_number_of_versions_no_prompt_changes_split_and_none_has_a_twin_in_another(tmp_path_factory, rounds):
    folder = tmp_path_factory.mktemp("rounds")
    splits = {}
    with Store.open(f"sqlite:///{folder}/store.db") as store:
        for batch in rounds:
            store.add(batch)
            for pair in freeze(store, ANY, folder / "versions").version.pairs():
                assert splits.setdefault(pair.prompt.text, pair.split) == pair.split
    for text, split in splits.items():
        alike = similar(signature(text), [signature(other) for other in splits])
        assert {other for other, is_alike in zip(splits.values(), alike, strict=True) if is_alike} == {split}


def test_the_digest_of_a_small_store_is_the_same_on_every_machine(store_of, tmp_path):
    entries = [
        entry("How long does an egg boil?", ["Six minutes.", "Ask a cook."], Said(Pairwise(Verdict.FIRST, 2))),
        entry(
            "Name two rivers.",
            ["Red.", "Red, blue, green.", "No."],
            Said(Ranking(((1,), (0,), (2,))), "bob"),
        ),
        entry(
            "Où est la gare ?",
            ["À gauche.", "Là."],
            Said(SECOND, edit="À gauche, monsieur."),
            slices={"language": "fr"},
        ),
    ]
    version, _ = freeze(store_of(*entries), ANY, tmp_path)
    # one of the first, three of the second, two of the third with its edit
    assert sum(version.counts.values()) == 6
    assert version.digest == "d360f8058fa56e283621b7c9022f7ffddf330dfd64af5997789d8f37138401ed"


def test_a_version_may_be_drawn_smaller_and_says_what_it_left_out(store_of, tmp_path):
    store = store_of(*(entry(f"question number {n}", [f"good {n}", f"bad {n}"], Said(FIRST)) for n in range(5)))
    whole, _ = freeze(store, ANY, tmp_path)
    drawn, report = freeze(store, FreezeRule(min_pairs=0, max_pairs=2), tmp_path)
    assert [p.key for p in drawn.pairs()] == sorted(p.key for p in whole.pairs())[:2]
    assert report.pairs_left_out == {"beyond max_pairs": 3}
