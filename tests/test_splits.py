import hashlib
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_data import duplicates
from preference_data.duplicates import AGREEING, ROWS, Signatures, clustered_text, signature, similar
from preference_data.records import Message, Prompt
from preference_data.splits import SHARES, decide, split_of
from preference_data.store import Assignment


def numbers(seed):
    return np.random.default_rng(seed).integers(0, 2**32, ROWS, dtype=np.uint32)


def with_changed(base, count):
    """A signature that differs from another in its first `count` rows."""
    changed = base.copy()
    changed[:count] ^= 1
    return changed.tobytes()


def test_the_signature_of_a_text_never_changes():
    text = "How do I bake bread without an oven?"
    assert len(signature(text)) == 4 * ROWS
    assert hashlib.sha256(signature(text)).hexdigest() == (
        "f65dbebabb26ae64aeba1a45036837fbb1820d31aba04dcdba9f15ce20ef6821"
    )


def test_case_width_and_white_space_make_no_difference():
    assert signature("Bake  BREAD\n at home") == signature("\uff42ake bread at home")


def test_texts_shorter_than_a_shingle_differ():
    assert signature("yes") != signature("no")
    assert not similar(signature("yes"), [signature("no")]).any()


def test_lone_surrogates_have_a_signature():
    assert signature("broken \ud800 text") != signature("broken text")


@pytest.mark.parametrize(("changed", "expected"), [(ROWS - AGREEING, True), (ROWS - AGREEING + 1, False)])
def test_similarity_begins_at_the_stated_number_of_equal_rows(changed, expected):
    base = numbers(0)
    assert similar(base.tobytes(), [with_changed(base, changed)]).tolist() == [expected]


def kept(*signatures):
    found = Signatures()
    for each in signatures:
        found.add(each)
    return found


@given(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS - AGREEING), st.integers(0, 5))
def test_no_similar_text_is_missed(rows, seed):
    base = numbers(seed)
    other = base.copy()
    other[sorted(rows)] ^= 1
    strangers = [numbers(100 + i).tobytes() for i in range(5)]
    found = kept(strangers[0], base.tobytes(), *strangers[1:], other.tobytes())
    assert found.similar_pairs(found.alike()).tolist() == [[1, 6]]


def test_a_signature_that_comes_again_is_the_first_of_its_kind():
    one, other = signature("the same text twice"), signature("something else")
    assert kept(one, other, one, one, other).alike().tolist() == [0, 1, 0, 0, 1]
    assert kept(one, other)[1] == other


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=2, max_size=12, unique=True))
def test_similar_pairs_are_those_that_every_two_compared_are(changes):
    """Three texts, each in versions that differ from it in so many rows; pieces small enough to cross all borders."""
    all_of_them = [with_changed(numbers(seed), count) for seed, count in changes]
    expected = [
        [i, j]
        for i, one in enumerate(all_of_them)
        for j in range(i + 1, len(all_of_them))
        if similar(one, [all_of_them[j]]).any()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "SIGNATURES_AT_ONCE", 3)
        found = kept(*all_of_them)
        assert found.similar_pairs(found.alike()).tolist() == expected


def test_the_system_turn_does_not_decide_the_cluster():
    asked = Message("user", "What is the capital of France?")
    assert clustered_text(Prompt((Message("system", "Be brief. " * 50), asked))) == clustered_text(Prompt((asked,)))


def test_a_prompt_of_system_turns_alone_still_has_a_text():
    assert clustered_text(Prompt((Message("system", "Greet the reader."),))) == "Greet the reader."


@pytest.mark.parametrize(
    ("cluster", "split"),
    # the SHA-256 of salt and name as a fraction: a 0.448, f 0.620, i 0.763; the bounds are 0.6 and 0.7
    [("a", "train"), ("f", "select"), ("i", "test")],
)
def test_the_split_of_a_cluster_never_changes(cluster, split):
    assert split_of(cluster) == split


def test_splits_have_their_shares():
    drawn = [split_of(str(i)) for i in range(20_000)]
    for split, share in SHARES.items():
        # standard error of a share of 0.3 in 20 000 is 0.0032
        assert drawn.count(split) / len(drawn) == pytest.approx(share, abs=0.013)


WORDS = [
    "baking",
    "one",
    "loaf",
    "of",
    "rye",
    "bread",
    "inside",
    "some",
    "iron",
    "pot",
    "over",
    "an",
    "open",
    "wood",
    "fire",
    "takes",
    "patience,",
    "good",
    "flour",
    "and",
    "clean",
    "water",
    "from",
    "your",
    "nearest",
    "mountain",
    "spring,",
    "which",
    "few",
    "people",
    "living",
    "under",
    "grey",
    "city",
    "skies",
    "can",
    "ever",
    "hope",
    "to",
    "find",
]
PLACES = range(2, 32, 5)


def variant(family, changed):
    """A text of one family with some words replaced: about four replacements apart, two variants are no longer similar."""
    words = list(WORDS) if family == 0 else [word[::-1] for word in WORDS]
    for place in changed:
        words[place] = f"<{place}>".center(6, "-")
    return " ".join(words)


def key_of(text):
    return Prompt.of(text).key


def by_key(texts):
    return {key_of(text): text for text in texts}


def stepping_stones():
    """Three texts: the first and the last each similar to the middle one, but not to each other."""
    first, middle, last = (variant(0, places) for places in ((), (7, 12, 22), (7, 12, 17, 22, 27)))
    ends = [signature(first), signature(last)]
    assert similar(signature(middle), ends).all()
    assert not similar(ends[0], ends[1:]).any()
    return first, middle, last


texts = st.builds(variant, st.integers(0, 1), st.frozensets(st.sampled_from(PLACES)))
batches = st.lists(st.lists(texts, max_size=8), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_no_near_duplicates_ever_cross_a_split_and_no_prompt_changes_its_own(batches):
    assigned, seen = {}, {}
    for batch in batches:
        seen |= by_key(batch)
        decision = decide(seen, assigned.values())
        new = {each.prompt_key: each for each in decision.assignments}
        assert not new.keys() & assigned.keys()
        assigned |= new
        assert sorted([*assigned, *decision.bridges]) == sorted(seen)
        for one in assigned.values():
            alike = similar(one.signature, [other.signature for other in assigned.values()])
            assert {o.split for o, is_alike in zip(assigned.values(), alike, strict=True) if is_alike} == {one.split}
            assert one.signature == signature(seen[one.prompt_key])


@settings(max_examples=30, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_the_decision_depends_on_no_order(batches, random):
    *before, last = batches
    assigned = list(decide(by_key(chain.from_iterable(before)), []).assignments)
    expected = decide(by_key(last), assigned)
    random.shuffle(last)
    random.shuffle(assigned)
    assert decide(by_key(last), assigned) == expected


def test_a_new_cluster_is_named_by_its_smallest_key_and_connects_through_others():
    texts = by_key(stepping_stones())
    decision = decide(texts, [])
    name = min(texts)
    assert [each.prompt_key for each in decision.assignments] == sorted(texts)
    assert {(each.cluster, each.split) for each in decision.assignments} == {(name, split_of(name))}
    assert decision.bridges == ()


@pytest.mark.parametrize("split", ["train", "select", "test"])
def test_new_prompts_join_the_split_of_what_they_resemble_even_through_others(split):
    first, middle, last = stepping_stones()
    home = Assignment(key_of(first), "c", split, signature(first))
    decision = decide(by_key([first, middle, last]), [home])
    assert {each.prompt_key: (each.cluster, each.split) for each in decision.assignments} == {
        key_of(middle): ("c", split),
        key_of(last): ("c", split),
    }


def test_a_prompt_between_two_splits_is_a_bridge_now_and_later():
    first, middle, last = stepping_stones()
    ends = [
        Assignment(key_of(first), "a", "train", signature(first)),
        Assignment(key_of(last), "b", "test", signature(last)),
    ]
    assert decide(by_key([middle]), ends) == ((), (key_of(middle),))
    decision = decide(by_key([middle, "something else altogether"]), ends)
    assert decision.bridges == (key_of(middle),)
    assert [each.prompt_key for each in decision.assignments] == [key_of("something else altogether")]


def test_what_resembles_only_a_bridge_founds_a_cluster_of_its_own():
    first, middle, last = stepping_stones()
    beside = f"{middle}, or so I hear"
    assert similar(signature(middle), [signature(beside)]).all()
    assert not similar(signature(beside), [signature(first), signature(last)]).any()
    ends = [
        Assignment(key_of(first), "a", "train", signature(first)),
        Assignment(key_of(last), "b", "test", signature(last)),
    ]
    decision = decide(by_key([middle, beside]), ends)
    assert decision.bridges == (key_of(middle),)
    name = key_of(beside)
    assert decision.assignments == (Assignment(name, name, split_of(name), signature(beside)),)


def test_the_same_text_in_other_letters_shares_signature_and_split():
    texts = {f"{i:02}": "what is rye bread?".replace(" ", " " * (i + 1)) for i in reversed(range(20))}
    home = ("00", split_of("00"), signature("WHAT IS RYE BREAD?"))
    assert decide(texts, []).assignments == tuple(Assignment(f"{i:02}", *home) for i in range(20))


def test_between_two_clusters_of_one_split_the_smaller_name_counts():
    first, middle, last = stepping_stones()
    ends = [
        Assignment(key_of(first), "b", "select", signature(first)),
        Assignment(key_of(last), "a", "select", signature(last)),
    ]
    decision = decide(by_key([middle]), ends)
    assert decision.assignments == (Assignment(key_of(middle), "a", "select", signature(middle)),)


def test_progress_counts_new_prompts_only():
    told = []
    known = decide({"1": "What is rye bread?"}, []).assignments
    decide({"1": "What is rye bread?", "2": "Who invented the wheel?"}, known, lambda *step: told.append(step))
    assert told == [(1, 1)]
