import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_data.database import wal_is_safe
from preference_data.errors import StoreError
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
from preference_data.store import Added, Assignment, Entry, Store, Watermark

AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
NOBODY = "0" * 64


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db") as opened:
        yield opened


def comparison(name="one", **fields):
    answers = (Completion(f"{name} first", Imported("f")), Completion(f"{name} second", Imported("f")))
    return Comparison(Prompt.of(f"{name}?"), answers, "file", **fields)


def entry(name="one", *verdicts, annotator="ann", **fields):
    about = comparison(name)
    said = (Judgement(about.key, annotator, Pairwise(each), AT, **fields) for each in verdicts)
    return Entry(about, tuple(said))


# --- what goes in comes out -------------------------------------------------------------------------------------

texts = st.text(st.one_of(st.characters(), st.sampled_from("\0\ud800é🙂")), max_size=12)
words = texts.filter(str.strip)
origins = st.one_of(
    st.builds(Imported, texts, texts),
    st.builds(Written, texts),
    st.builds(Sampled, texts, st.floats(0, 2), st.floats(0, 1), st.integers(1, 4096), st.integers(0, 2**63 - 1)),
)
prompts = st.builds(
    lambda turns, last: Prompt((*turns, last)),
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts), max_size=3),
    st.builds(Message, st.just("user"), texts),
)
comparisons = st.builds(
    Comparison,
    prompts,
    st.lists(st.builds(Completion, words, origins), min_size=1, max_size=4).map(tuple),
    texts,
    st.dictionaries(texts, texts, max_size=2),
)
opinions = st.one_of(
    st.builds(Pairwise, st.sampled_from(Verdict), st.sampled_from([None, 1, 2, 3])),
    st.builds(Thumb, st.booleans()),
    st.builds(
        Rating,
        st.lists(st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False)), max_size=3).map(tuple),
    ),
    st.builds(Ranking, st.permutations(range(4)).map(lambda order: ((order[0],), tuple(order[1:3]), (order[3],)))),
)
facts = st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans(), st.none(), st.lists(texts)), max_size=2)


@st.composite
def entries(draw):
    about = draw(comparisons)
    judgements = st.builds(
        Judgement,
        comparison=st.just(about.key),
        annotator=texts,
        opinion=opinions,
        at=st.datetimes(timezones=st.just(UTC)),
        rationale=texts,
        edit=texts,
        flags=st.lists(texts, max_size=2).map(tuple),
        shown_order=st.permutations(range(2)).map(tuple),
        guideline=texts,
        extra=facts,
    )
    return Entry(about, tuple(draw(st.lists(judgements, max_size=3, unique_by=lambda each: each.key))))


@settings(max_examples=40)
@given(st.lists(entries(), max_size=4, unique_by=lambda each: each.comparison.key))
def test_round_trip(given_entries):
    with Store.open("sqlite://") as store:
        store.add(given_entries)
        assert list(store.entries()) == given_entries
        store.verify_chain()


def test_the_first_of_two_that_count_as_one_stays_whether_they_come_together_or_not():
    """Who wrote an answer is no part of what a comparison is."""
    ann, bob = (
        Entry(Comparison(Prompt.of("?"), (Completion("yes", Written(who)),), "file", {}), ()) for who in ("ann", "bob")
    )
    assert ann.comparison.key == bob.comparison.key
    with Store.open("sqlite://") as together, Store.open("sqlite://") as apart:
        assert together.add([ann, bob]) == Added(1, 1)
        assert [apart.add([ann]), apart.add([bob])] == [Added(1, 0), Added(0, 1)]
        assert list(together.entries()) == list(apart.entries()) == [ann]


@settings(max_examples=20)
@given(st.lists(entries(), max_size=4), st.data())
def test_adding_in_any_pieces_and_again_is_adding_once(given_entries, data):
    with Store.open("sqlite://") as whole, Store.open("sqlite://") as pieces:
        whole.add(given_entries)
        before, rest = 0, [*given_entries]
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            added = pieces.add(rest[:size])
            assert sum(added) == sum(len(each.judgements) or 1 for each in rest[:size])
            again = pieces.add(rest[:size])
            assert again == Added(0, sum(added))
            before, rest = before + added.stored, rest[size:]
        assert list(pieces.entries()) == list(whole.entries())
        assert pieces.counts() == whole.counts()


def test_more_than_a_chunk_comes_back_in_order(store):
    many = [entry(str(number), Verdict.FIRST) for number in range(1234)]
    assert store.add(many) == Added(1234, 0)
    assert list(store.entries()) == many
    assert list(store.entries(upto=1001)) == many[:1001]
    store.verify_chain()


# --- idempotency and what counts ----------------------------------------------------------------------------------


def test_counts_of_a_batch(store):
    bare, judged = entry("bare"), entry("judged", Verdict.FIRST, Verdict.TIE)
    assert store.add([bare, judged]) == Added(stored=3, duplicates=0)  # one comparison without, two judgements
    assert store.add([bare, judged]) == Added(stored=0, duplicates=3)
    assert store.add([entry("judged", Verdict.TIE, Verdict.SKIP)]) == Added(stored=1, duplicates=1)
    assert store.add([entry("bare", Verdict.SKIP)]) == Added(stored=1, duplicates=0)
    assert store.add([]) == Added(0, 0)
    assert store.counts() == {
        "prompts": 2,
        "comparisons": 2,
        "judgements": 4,
        "annotators": 1,
        "assignments": 0,
        "erasures": 0,
        "pairwise": 4,
    }


def test_a_retry_with_a_later_clock_is_a_duplicate(store):
    first = entry("one", Verdict.FIRST)
    later = Entry(
        first.comparison, (Judgement(first.comparison.key, "ann", Pairwise(Verdict.FIRST), AT + timedelta(1)),)
    )
    store.add([first])
    assert store.add([later]) == Added(0, 1)
    assert list(store.entries()) == [first]


def test_judgement_of_another_comparison_is_refused(store):
    other = comparison("other")
    with pytest.raises(StoreError, match=f"judgement of comparison {other.key}; expected {comparison().key}"):
        store.add([Entry(comparison(), (Judgement(other.key, "ann", Thumb(up=True), AT),))])
    assert store.watermark() == Watermark(0, NOBODY)


def test_a_stream_sees_the_store_as_it_was(store):
    before = [entry(str(number), Verdict.FIRST) for number in range(500)] + [entry("late")]  # more than one chunk
    store.add(before)
    mark, stream = store.watermark(), store.entries()
    first = next(stream)
    store.add([entry("late", Verdict.TIE), entry("later", Verdict.TIE)])  # no lock is held between two entries
    assert [first, *stream] == before
    assert list(store.entries(upto=mark.seq)) == before[:500]
    assert len(list(store.entries())) == 502


def test_writers_at_once_make_one_chain(store, tmp_path):
    def write(name):
        with Store.open(f"sqlite:///{tmp_path}/p.db") as own:
            for number in range(10):
                own.add([entry(f"{name}.{number}", Verdict.TIE)])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(write, "abc")) == [None] * 3
    assert store.watermark().seq == 30
    store.verify_chain()


def test_superseded_judgements_are_left_out(store):
    old = entry("one", Verdict.FIRST)
    changed = entry("one", Verdict.SECOND, supersedes=old.judgements[0].key)
    store.add([old])
    before = store.watermark().seq
    store.add([changed])
    assert list(store.entries()) == [changed]
    assert list(store.entries(superseded=True)) == [Entry(old.comparison, old.judgements + changed.judgements)]
    assert list(store.entries(upto=before)) == [old]


def test_one_comparison_cannot_supersede_in_another(store):
    victim = entry("one", Verdict.FIRST)
    other = entry("two", Verdict.FIRST, supersedes=victim.judgements[0].key)
    store.add([victim, other])
    assert list(store.entries()) == [victim, other]


# --- splits -------------------------------------------------------------------------------------------------------


def test_a_split_is_for_ever(store):
    first = [Assignment("a", "a", "train", b"1"), Assignment("b", "b", "test", b"2")]
    store.assign(first)
    store.assign([first[1], Assignment("c", "a", "train", b"3"), first[0]])
    with pytest.raises(StoreError, match="prompt b: got split 'train', but it is in 'test' for ever"):
        store.assign([Assignment("d", "d", "select", b"4"), Assignment("b", "b", "train", b"2")])
    with pytest.raises(StoreError, match="prompt d: got split 'test', but it is in 'select' for ever"):
        store.assign([Assignment("d", "d", "select", b"4"), Assignment("d", "d", "test", b"4")])
    assert list(store.assignments()) == [*first, Assignment("c", "a", "train", b"3")]
    assert store.split_of(["b", "c", "d"]) == {"b": "test", "c": "train"}


def test_many_assignments(store):
    keys = [f"{number:05}" for number in range(12_000)]
    store.assign(Assignment(key, key, "train", b"s") for key in keys)
    assert store.split_of(keys) == dict.fromkeys(keys, "train")
    assert [each.prompt_key for each in store.assignments()] == keys


# --- backup -------------------------------------------------------------------------------------------------------


def test_backup_is_a_store(store, tmp_path):
    store.add([entry("one", Verdict.FIRST)])
    store.backup(tmp_path / "copy.db")
    store.add([entry("two", Verdict.FIRST)])
    with Store.open(f"sqlite:///{tmp_path}/copy.db") as copy:
        assert list(copy.entries()) == [entry("one", Verdict.FIRST)]
        copy.verify_chain()
        assert copy.add([entry("two", Verdict.FIRST)]) == Added(1, 0)
    with pytest.raises(StoreError, match=r"copy\.db: exists already"):
        store.backup(tmp_path / "copy.db")
    with pytest.raises(StoreError, match="cannot be opened|No such file"):
        store.backup(tmp_path / "none" / "copy.db")


def test_this_machine_does_not_use_an_unsafe_wal(store):
    with store.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    assert mode == ("wal" if wal_is_safe(sqlite3.sqlite_version_info[:3]) else "delete")
