from datetime import UTC, datetime

import pytest

from preference_data.records import (
    Comparison,
    Completion,
    Imported,
    Judgement,
    Pairwise,
    Prompt,
    Ranking,
    Rating,
    Thumb,
    Verdict,
)
from preference_data.votes import Unused, Vote, tally, votes_of, votes_of_thumbs

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND = Pairwise(Verdict.FIRST), Pairwise(Verdict.SECOND)


def votes(answers, opinion, edit=""):
    """(better, worse, weight) of each vote, and the reason there is none."""
    comparison = Comparison(Prompt.of("?"), tuple(Completion(text, Imported("x")) for text in answers), "file")
    found, unused = votes_of(comparison, Judgement(comparison.key, "ann", opinion, NOON, edit=edit))
    return [vote[:3] for vote in found], unused


@pytest.mark.parametrize(
    ("opinion", "expected"),
    [
        (FIRST, ([("a", "b", 1)], None)),
        (SECOND, ([("b", "a", 1)], None)),
        (Pairwise(Verdict.TIE), ([], Unused.TIE)),
        (Pairwise(Verdict.NEITHER), ([], Unused.NEITHER)),
        (Pairwise(Verdict.SKIP), ([], Unused.SKIP)),
        # means over the shared dimension only: 4 against 3
        (Rating(({"help": 4, "style": 1}, {"help": 3})), ([("a", "b", 1)], None)),
        # means 2.5 and 3
        (Rating(({"help": 4, "true": 1}, {"help": 2, "true": 4})), ([("b", "a", 1)], None)),
        (Rating(({"help": 4, "true": 1}, {"help": 2, "true": 3})), ([], Unused.TIE)),
        (Rating(({"help": 4}, {"style": 1})), ([], Unused.MISFIT)),
        (Rating(({"help": 4},)), ([], Unused.MISFIT)),
        (Ranking(((1,), (0,))), ([("b", "a", 1)], None)),
        (Ranking(((1, 0),)), ([], Unused.TIE)),
        (Ranking(((1,),)), ([], Unused.SINGLE)),
        (Ranking(()), ([], Unused.MISFIT)),
        (Ranking(((1,), (2,))), ([], Unused.MISFIT)),
        (Ranking(((-1,), (0,))), ([], Unused.MISFIT)),
        (Ranking(((1,), (1,))), ([], Unused.MISFIT)),
    ],
)
def test_what_an_opinion_on_two_answers_votes_for(opinion, expected):
    assert votes(["a", "b"], opinion) == expected


def test_a_ranking_votes_on_all_ordered_pairs_with_one_over_n_less_one():
    # c > (a, b) > d: five ordered pairs, a and b tied; 1 / (4 - 1) each
    found, unused = votes(["a", "b", "c", "d"], Ranking(((2,), (0, 1), (3,))))
    third = 1 / 3
    assert sorted(found) == [
        ("a", "d", third), ("b", "d", third), ("c", "a", third), ("c", "b", third), ("c", "d", third)
    ]  # fmt: skip
    assert unused is None


def test_ratings_of_three_answers_are_a_ranking():
    found, _ = votes(["a", "b", "c"], Rating(({"q": 1}, {"q": 3}, {"q": 2})))
    assert sorted(found) == [("b", "a", 0.5), ("b", "c", 0.5), ("c", "a", 0.5)]


@pytest.mark.parametrize(
    ("answers", "opinion", "expected"),
    [
        (["a", "b"], FIRST, [("a", "b", 1), ("e", "a", 1)]),
        (["a", "b"], Pairwise(Verdict.TIE), [("e", "a", 0.5), ("e", "b", 0.5)]),
        (["a", "b"], Pairwise(Verdict.NEITHER), [("e", "a", 0.5), ("e", "b", 0.5)]),
        (["a", "b"], Pairwise(Verdict.SKIP), []),
        (["a"], Thumb(up=False), [("e", "a", 1)]),
        (
            ["a", "b", "c"],
            Ranking(((2,), (0,), (1,))),
            [("a", "b", 0.5), ("c", "a", 0.5), ("c", "b", 0.5), ("e", "c", 1)],
        ),
        (["e", "b"], FIRST, [("e", "b", 1)]),
    ],
)
def test_an_edit_beats_the_answers_put_first(answers, opinion, expected):
    assert sorted(votes(answers, opinion, edit="e")[0]) == sorted(expected)


def test_thumbs_are_no_pairs():
    assert votes(["a"], Thumb(up=True)) == ([], Unused.THUMB)


def thumb(text, *, up, flags=()):
    comparison = Comparison(Prompt.of("q"), (Completion(text, Imported("x")),), "x")
    return comparison, Judgement(comparison.key, "ann", Thumb(up=up), NOON, flags=flags)


def test_thumbs_of_one_person_rank_what_is_good_before_what_is_bad():
    given = [thumb("a", up=True), thumb("b", up=False), thumb("c", up=True)]
    keys = {c.completions[0].text: j.key for c, j in given}
    # Of three answers each votes with 1 / 2, once, as a ranking of them would.
    assert sorted(votes_of_thumbs(given)) == [
        Vote(better, "b", 0.5, None, keys[better], keys["b"]) for better in ("a", "c")
    ]
    alike = votes_of_thumbs([thumb("a", up=True), thumb("b", up=False)])
    assert tally([*alike, Vote("b", "a", 1, None, "bob's")]) is None  # one person against another: a contradiction
    assert votes_of_thumbs([thumb("a", up=True), thumb("c", up=True)]) == []
    assert votes_of_thumbs([thumb("a", up=True), thumb(" a ", up=False)]) == []
    assert votes_of_thumbs([thumb("a", up=True), thumb("b", up=False, flags=("trial",))]) == []


def test_answers_that_differ_in_white_space_only_are_no_pair():
    assert votes(["a", " a\n"], FIRST) == ([], Unused.SAME_TEXT)


def test_a_pairwise_opinion_on_three_answers_does_not_fit():
    assert votes(["a", "b", "c"], FIRST) == ([], Unused.MISFIT)


def test_the_majority_decides_and_the_net_share_is_the_weight():
    # three against one: (3 - 1) / 4; strengths of the winners that gave one: (3 + 2) / 2
    cast = [
        Vote("a", "b", 1, 3, "1"),
        Vote("b", "a", 1, 3, "2"),
        Vote("a", "b", 1, None, "3"),
        Vote("a", "b", 1, 2, "4"),
    ]
    assert tally(cast) == ("a", "b", 0.5, 2.5, True)
    assert tally(cast[:1]) == ("a", "b", 1, 3, False)
    assert tally(cast[:2]) is None


def test_thirds_that_cancel_are_a_contradiction():
    assert tally([Vote("a", "b", 1, None, "1"), *(Vote("b", "a", 1 / 3, None, str(i)) for i in range(3))]) is None
