"""What leads see of people: worked out by hand on a small project."""

from datetime import UTC, datetime, timedelta

import pytest

from preference_data.annotators import Share, annotators
from preference_data.queue import Given
from preference_data.records import Pairwise, Ranking, Rating, Thumb, Verdict
from preference_data.told import NEITHER, Told, answers, dimensions, disputed, questions, told
from tests.page_kit import Page, compare
from ui.tables import agreement_rows

FIRST, SECOND, TIE = Pairwise(Verdict.FIRST, 2), Pairwise(Verdict.SECOND, 3), Pairwise(Verdict.TIE)
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def say(
    item, person, opinion, *, minute=0.0, purpose="work", order=(0, 1), lengths=(10, 20), expected=None, seconds=30
):
    at = START + timedelta(minutes=minute)
    outcome = "skipped" if opinion == Pairwise(Verdict.SKIP) else "judged"
    return Told(item, item, f"c{item}", person, purpose, outcome, opinion, expected, order, lengths, seconds, at, 1)


@pytest.mark.parametrize(
    ("opinion", "sides", "ordinal"),
    [
        (FIRST, {"": -1}, {"": -2}),
        (SECOND, {"": 1}, {"": 3}),
        (Pairwise(Verdict.FIRST), {"": -1}, {"": -1}),
        (TIE, {"": 0}, {"": 0}),
        (Pairwise(Verdict.NEITHER), {"": NEITHER}, {}),
        (Pairwise(Verdict.SKIP), {}, {}),
        (Thumb(True), {"": 1}, {"": 1}),
        (Rating(({"true": 4}, {"true": 2})), {"0/true": 4, "1/true": 2}, {"0/true": 4, "1/true": 2}),
        (Ranking(((2,), (0, 1))), {"0/1": 0, "0/2": 1, "1/2": 1}, {"0/1": 0, "0/2": 1, "1/2": 1}),
    ],
)
def test_an_opinion_answers_questions(opinion, sides, ordinal):
    assert answers(opinion, ordinal=False) == sides
    assert answers(opinion, ordinal=True) == ordinal


def test_questions_hold_what_each_person_said_of_work_items():
    everything = [say(1, "ann", FIRST), say(1, "bob", TIE), say(2, "ann", SECOND, purpose="gold", expected=SECOND)]
    everything += [say(3, "ann", FIRST)._replace(withdrawn=True), say(3, "bob", SECOND)]
    assert questions(everything, ordinal=True) == {(1, ""): {"ann": -2, "bob": 0}, (3, ""): {"bob": 3}}
    assert [share for share, _ in disputed(everything)] == [1], "of items 1 and 3 only the first is judged twice"


def test_ratings_on_different_dimensions_are_not_compared():
    everything = [
        say(item, person, Rating(({"safe": 5, "style": style}, {"safe": 5, "style": 3 - style})))
        for item in range(6)
        for person, style in (("ann", 1), ("bob", 1 + item % 2))
    ]
    assert dimensions(everything) == ["safe", "style"]
    rows = {row[0]: row[1:] for row in agreement_rows(everything, "rating")}
    assert rows["safe: Krippendorff's alpha, nominal"][0] == "undefined"
    assert rows["style: equal answers"][0] == "0.500"
    assert len(rows) == 8


def test_working_time_outlives_a_correction():
    moments = ((START, 30.0), (START + timedelta(minutes=2), 20.0))
    corrected = say(1, "ann", FIRST, minute=600)._replace(worked=(*moments, (START + timedelta(minutes=600), 10.0)))
    (ann,) = annotators([corrected])
    # 30 s at first, two minutes between, and after the long pause the 10 s it was on the screen
    assert ann.active_min == pytest.approx((30 + 120 + 10) / 60)


def test_a_person_is_described():
    everything = [
        say(1, "ann", FIRST, order=(0, 1)),  # left, the shorter
        say(2, "ann", SECOND, order=(1, 0), minute=1),  # left, the longer
        say(3, "ann", SECOND, order=(0, 1), lengths=(9, 9), minute=2),  # right; lengths are equal
        say(4, "ann", Pairwise(Verdict.SKIP), minute=3),
        say(1, "ann", SECOND, purpose="repeat", minute=4),  # the other way round the second time
        say(5, "ann", FIRST, purpose="gold", expected=FIRST, minute=60),
        say(1, "bob", FIRST),
        say(2, "bob", TIE),
    ]
    ann, bob = annotators(everything)
    assert (ann.person, ann.judged, ann.skipped, ann.late, ann.median_s) == ("ann", 3, 1, 0, 30)
    # half a minute on the first, four gaps of one minute, and after the pause the half minute on the screen
    assert ann.active_min == pytest.approx(0.5 + 4 + 0.5)
    assert ann.alike == Share(1, 2)
    assert (ann.gold, ann.steady) == (Share(1, 1), Share(0, 1))
    assert (ann.left.some, ann.left.of, ann.left.p) == (2, 3, pytest.approx(1.0))
    assert (ann.longer.some, ann.longer.of, ann.longer.p) == (1, 2, pytest.approx(1.0))
    assert (bob.judged, bob.alike, bob.gold.value) == (2, Share(1, 2), None)


def test_the_most_disputed_items_come_first():
    everything = [
        *(say(1, who, FIRST) for who in "abc"),
        *(say(2, who, opinion) for who, opinion in zip("abc", (FIRST, FIRST, SECOND), strict=True)),
        *(say(3, who, opinion) for who, opinion in zip("abc", (FIRST, TIE, SECOND), strict=True)),
    ]
    assert [(round(share, 3), said[0].item) for share, said in disputed(everything)] == [(1.0, 3), (0.667, 2)]


def test_what_was_said_is_read_with_how_it_was_shown(tmp_path):
    page = Page(tmp_path, overlap=2)
    page.ask(compare(1, "short", "much longer"))
    for person, opinion in (("ann", FIRST), ("bob", SECOND)):
        (shown,) = page.queue.take("p", person, count=1).showings
        page.queue.submit(shown.lease, person, Given(opinion=opinion, seconds=4.5))
    page.queue.correct(1, "ann", Given(opinion=TIE, seconds=2))
    ann, bob = told(page.store.engine, "p")
    assert (ann.person, ann.opinion, ann.seconds, ann.lengths, ann.outcome) == ("ann", TIE, 2, (5, 11), "judged")
    assert (bob.opinion, sorted(bob.shown_order), bob.guideline) == (SECOND, [0, 1], 1)
