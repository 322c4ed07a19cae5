"""Queue and projects: exact overlap, no item twice, leases, retries, corrections, trials, gold, repeats."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_data import leases, queue
from preference_data.errors import QueueError, Refused
from preference_data.opinions import as_it_stood, turned
from preference_data.projects import Projects, ProjectSettings
from preference_data.queue import Candidate, Given, Queue
from preference_data.records import (
    Comparison,
    Completion,
    Imported,
    Pairwise,
    Prompt,
    Ranking,
    Rating,
    Thumb,
    Verdict,
    digest,
)
from preference_data.store import Entry, Store

FIRST, SECOND = Pairwise(Verdict.FIRST, 2), Pairwise(Verdict.SECOND, 1)
SKIP = Pairwise(Verdict.SKIP)


class World:
    """A store with one project."""

    def __init__(self, folder, mode="pairwise", items=4, answers=2, **options):
        self.store = Store.open(f"sqlite:///{folder}/p.db")
        self.projects, self.queue = Projects(self.store.engine), Queue(self.store.engine)
        self.projects.create("p", mode, guideline="Be fair.", settings=ProjectSettings(**options), by="lead")
        self.comparisons = [compare(i, answers) for i in range(items)]
        self.store.add(Entry(c, ()) for c in self.comparisons)
        self.add(self.comparisons)

    def add(self, comparisons, **options):
        return self.queue.add("p", [Candidate(comparison=c.key, **options) for c in comparisons], by="lead")

    def take(self, person="ann", count=1, **options):
        return self.queue.take("p", person, count=count, **options).showings

    def why(self, person="ann", count=1):
        return self.queue.take("p", person, count=count).why

    def judge(self, person="ann", opinion=FIRST, count=1):
        """Take and judge; the number of judgements given."""
        shown = self.take(person, count)
        for each in shown:
            self.queue.submit(each.lease, person, Given(opinion=opinion))
        return len(shown)

    def judgements(self):
        return [j for entry in self.store.entries() for j in entry.judgements]


def compare(i, answers=2):
    texts = [Completion(f"answer {k} to {i}", Imported("test", f"policy-{k}")) for k in range(answers)]
    return Comparison(Prompt.of(f"question {i}?"), tuple(texts), "test", {"language": "en" if i % 2 else "de"})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def later(monkeypatch):
    """Let time pass."""

    def pass_by(seconds):
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        monkeypatch.setattr(queue, "now", lambda: moment)

    return pass_by


def test_what_is_shown_is_judged_and_recorded(world):
    shown = world.take()[0]
    receipt = world.queue.submit(
        shown.lease, "ann", Given(opinion=FIRST, rationale="clearer", edit="better still", flags=("pii",), seconds=3.14)
    )
    assert (receipt.outcome, receipt.known) == ("judged", False)
    [said] = world.judgements()
    assert (said.key, said.annotator, said.opinion) == (receipt.judgement, "ann", FIRST)
    assert (said.rationale, said.edit, said.flags) == ("clearer", "better still", ("pii",))
    assert sorted(said.shown_order) == [0, 1]
    assert said.guideline == "p/1"
    assert said.extra == {"lease": shown.lease, "seconds": 3.1}


def test_asking_again_gives_the_same_and_no_more(world):
    first = world.take(count=2)
    again = world.take(count=2)
    assert [s.lease for s in first] == [s.lease for s in again]
    assert len(world.take(count=3)) == 3


def test_each_item_is_judged_by_as_many_as_the_overlap_says_and_nobody_twice(tmp_path):
    world = World(tmp_path, items=5, overlap=2)
    given = [world.judge(person, count=9) for person in ("ann", "bob", "cid")]
    assert given == [5, 5, 0]
    assert world.why("cid") == world.why("ann") == "nothing open"
    by_item = {}
    for said in world.judgements():
        by_item.setdefault(said.comparison, []).append(said.annotator)
    assert sorted(map(sorted, by_item.values())) == [["ann", "bob"]] * 5
    assert world.queue.progress("p") == (5, 5, 0, 10, 0, 2)


def test_a_place_that_is_held_is_nobody_elses_until_its_time_runs_out(tmp_path, later):
    world = World(tmp_path, items=1, lease_s=60)
    world.take("ann")
    assert world.take("bob") == []
    later(61)
    assert len(world.take("bob")) == 1


def test_a_late_judgement_counts_while_its_place_is_free(tmp_path, later):
    world = World(tmp_path, items=1, lease_s=60)
    shown = world.take("ann")[0]
    later(3600)
    assert world.queue.submit(shown.lease, "ann", Given(opinion=FIRST)).outcome == "judged"
    assert world.why("bob") == "nothing open"


def test_a_judgement_whose_place_was_given_away_is_kept_and_set_aside(tmp_path, later):
    world = World(tmp_path, items=1, lease_s=60)
    shown = world.take("ann")[0]
    later(61)
    assert world.judge("bob", SECOND) == 1
    late = world.queue.submit(shown.lease, "ann", Given(opinion=FIRST))
    assert (late.outcome, late.known) == ("late", False)
    assert world.queue.submit(shown.lease, "ann", Given(opinion=FIRST)) == late._replace(known=True)
    assert [(j.annotator, j.flags) for j in world.judgements()] == [("bob", ()), ("ann", ("late",))]
    assert world.queue.progress("p").judgements == 1


def test_the_same_item_held_anew_is_answered_under_the_old_lease_too(tmp_path, later):
    world = World(tmp_path, items=1, lease_s=60)
    old = world.take("ann")[0]
    later(61)
    new = world.take("ann")[0]
    assert new.lease != old.lease
    assert world.queue.submit(old.lease, "ann", Given(opinion=FIRST)).outcome == "judged"
    assert world.take("ann") == []
    assert world.queue.progress("p")[1:5] == (1, 0, 1, 0)


def test_sending_it_again_changes_nothing_and_another_answer_is_refused(world):
    shown = world.take()[0]
    first = world.queue.submit(shown.lease, "ann", Given(opinion=FIRST, seconds=2.0))
    again = world.queue.submit(shown.lease, "ann", Given(opinion=FIRST, seconds=2.0))
    assert again == first._replace(known=True)
    with pytest.raises(Refused, match="you judged it already, and otherwise; correct that judgement instead"):
        world.queue.submit(shown.lease, "ann", Given(opinion=SECOND))
    assert len(world.judgements()) == 1


@pytest.mark.parametrize("number", [1, 99])
def test_a_foreign_or_unknown_item_is_refused(world, number):
    assert world.take("ann")[0].lease == 1
    with pytest.raises(Refused, match=f"item {number}: not shown to 'bob'"):
        world.queue.submit(number, "bob", Given(opinion=FIRST))
    assert world.judgements() == []


def test_a_correction_supersedes_and_can_be_sent_twice(world):
    shown = world.take()[0]
    first = world.queue.submit(shown.lease, "ann", Given(opinion=FIRST))
    second = world.queue.correct(shown.lease, "ann", Given(opinion=SECOND))
    assert world.queue.correct(shown.lease, "ann", Given(opinion=SECOND)) == second._replace(known=True)
    third = world.queue.correct(shown.lease, "ann", Given(opinion=FIRST))
    assert len({first.judgement, second.judgement, third.judgement}) == 3
    [entry] = [e for e in world.store.entries() if e.judgements]
    assert [j.opinion for j in entry.judgements] == [FIRST]
    [whole] = [e for e in world.store.entries(superseded=True) if e.judgements]
    assert [j.opinion for j in whole.judgements] == [FIRST, SECOND, FIRST]
    # the first sending, arriving once more after all that
    assert world.queue.submit(shown.lease, "ann", Given(opinion=FIRST)).known
    [own] = world.queue.own("p", "ann", last=5)
    assert (own.showing.lease, own.judgement.opinion, own.outcome) == (shown.lease, FIRST, "judged")


def test_only_what_was_judged_can_be_corrected(world):
    with pytest.raises(Refused, match="not judged yet"):
        world.queue.correct(world.take()[0].lease, "ann", Given(opinion=FIRST))


def test_a_skip_leaves_the_place_to_somebody_else_and_three_halt_the_item(tmp_path):
    world = World(tmp_path, items=1)
    assert [world.judge(person, SKIP) for person in ("ann", "ann", "bob", "cid", "dan")] == [1, 0, 1, 1, 0]
    assert world.queue.progress("p") == (1, 0, 1, 0, 0, 0)


def test_a_skip_that_is_corrected_takes_a_place_only_where_there_is_one(tmp_path):
    world = World(tmp_path, items=1)
    shown = world.take("ann")[0]
    world.queue.submit(shown.lease, "ann", Given(opinion=SKIP))
    world.judge("bob")
    assert world.queue.correct(shown.lease, "ann", Given(opinion=FIRST)).outcome == "late"
    assert world.queue.progress("p").judgements == 1


def test_a_verdict_corrected_to_a_skip_opens_the_item_again(tmp_path):
    world = World(tmp_path, items=1)
    shown = world.take("ann")[0]
    world.queue.submit(shown.lease, "ann", Given(opinion=FIRST))
    assert world.take("bob") == []
    world.queue.correct(shown.lease, "ann", Given(opinion=SKIP))
    assert len(world.take("bob")) == 1


def test_what_is_released_may_be_shown_again(tmp_path):
    world = World(tmp_path, items=1)
    shown = world.take("ann")[0]
    world.queue.release(shown.lease, "ann")
    assert len(world.take("bob")) == 1
    assert world.queue.submit(shown.lease, "ann", Given(opinion=FIRST)).outcome == "late"


def test_higher_priority_comes_first_and_else_the_order_is_drawn(tmp_path):
    world = World(tmp_path, items=30)
    urgent = [compare(i) for i in range(100, 103)]
    world.store.add(Entry(c, ()) for c in urgent)
    world.add(urgent, priority=1)
    shown = [s.comparison.key for s in world.take(count=33)]
    assert set(shown[:3]) == {c.key for c in urgent}
    drawn = [world.comparisons.index(c) for key in shown[3:] for c in world.comparisons if c.key == key]
    assert sorted(drawn) == list(range(30))
    assert drawn != sorted(drawn)


def test_items_go_to_those_who_can_judge_them(tmp_path):
    world = World(tmp_path, items=0)
    comparisons = [compare(i) for i in range(3)]
    world.store.add(Entry(c, ()) for c in comparisons)
    world.add(comparisons[:1], needs={"language": "de"})
    world.add(comparisons[1:2], needs={"person": "bob"})
    world.add(comparisons[2:], needs={"language": "fi"})
    assert world.take("ann", 3, abilities={"language": ["en"]}) == []
    assert [s.comparison for s in world.take("ann", 3, abilities={"language": ["en", "de"]})] == comparisons[:1]
    assert [s.comparison for s in world.take("bob", 3)] == comparisons[1:2]


def test_adding_twice_adds_once(world):
    assert world.add(world.comparisons) == (0, 4)


def test_a_trial_is_taken_first_and_failing_it_ends_there(tmp_path):
    world = World(tmp_path, pass_mark=0.5)
    trial = [compare(i) for i in (50, 51)]
    world.store.add(Entry(c, ()) for c in trial)
    world.add(trial, purpose="trial", expected=FIRST, why="It is shorter.")
    for person, opinions, right in (("ann", (FIRST, SECOND), [True, False]), ("bob", (SECOND, SECOND), [False, False])):
        shown = world.take(person, 2)
        assert {s.comparison.key for s in shown} == {c.key for c in trial}
        assert [s.lease for s in world.take(person, 3)] == [s.lease for s in shown]
        assert world.why(person, 3) == "trial under way"
        receipts = [world.queue.submit(s.lease, person, Given(opinion=o)) for s, o in zip(shown, opinions, strict=True)]
        assert [r.right for r in receipts] == right
        assert {r.why for r in receipts} == {"It is shorter."}
    assert {s.purpose for s in world.take("ann", 4)} == {"work"}
    assert world.take("bob", 4) == []
    assert world.why("bob") == "trial failed"
    assert {j.flags for j in world.judgements()} == {("trial",)}


def test_a_trial_can_neither_be_sat_out_nor_mended_after_its_answer_was_told(tmp_path, later):
    world = World(tmp_path, pass_mark=1.0, lease_s=60)
    trial = compare(50)
    world.store.add([Entry(trial, ())])
    world.add([trial], purpose="trial", expected=FIRST, why="It is shorter.")
    assert [s.purpose for s in world.take()] == ["trial"]
    later(61)
    [shown] = world.take()
    assert shown.purpose == "trial"
    assert world.queue.submit(shown.lease, "ann", Given(opinion=SECOND)).right is False
    world.queue.correct(shown.lease, "ann", Given(opinion=FIRST))
    assert world.why() == "trial failed"


def test_gold_items_and_repeats_come_in_their_shares(tmp_path):
    world = World(tmp_path, items=200, gold_share=0.2, repeat_share=0.2, repeat_after=5)
    gold = [compare(i) for i in range(500, 560)]
    world.store.add(Entry(c, ()) for c in gold)
    world.add(gold, purpose="gold", expected=FIRST)
    first: dict = {}
    purposes = []
    for _ in range(120):
        shown = world.take()[0]
        purposes.append(shown.purpose)
        if shown.purpose == "repeat":
            assert shown.shown_order == tuple(reversed(first[shown.comparison.key]))
        else:
            assert shown.comparison.key not in first
            first[shown.comparison.key] = shown.shown_order
        world.queue.submit(shown.lease, "ann", Given(opinion=FIRST))
    # 120 draws at 0.2: mean 24, standard deviation 4.4; the bounds are three of them away
    for purpose in ("gold", "repeat"):
        assert 11 <= purposes.count(purpose) <= 37
    assert sum("repeat" in j.flags for j in world.judgements()) == purposes.count("repeat")
    assert world.queue.progress("p").judgements == purposes.count("work")


def test_a_daily_cap_and_a_closed_project_say_so(tmp_path, later):
    world = World(tmp_path, items=9, daily_cap=3)
    assert world.judge(count=9) == 3
    assert world.why() == "daily cap"
    later(24 * 3600)
    assert len(world.take(count=9)) == 3
    world.queue.change("p", settings=ProjectSettings(closed=True), by="lead")
    assert world.why("bob") == "closed"


def test_a_judgement_names_the_guideline_it_was_shown_under(world):
    shown = world.take()[0]
    changed = world.queue.change("p", guideline="Be kind.", by="lead")
    assert (changed.label, changed.guideline) == ("p/2", "Be kind.")
    world.queue.submit(shown.lease, "ann", Given(opinion=FIRST))
    assert [j.guideline for j in world.judgements()] == ["p/1"]
    assert world.projects.guideline("p", 1) == "Be fair."


def test_items_held_while_a_guideline_is_withdrawn_are_judged_under_its_successor(world):
    before = world.take(count=2)
    settings = replace(world.projects.get("p").settings, counts_from=2, old_weight=0)
    world.queue.change("p", guideline="Be kind.", settings=settings, by="lead")
    after = world.take(count=2)
    assert [(s.comparison.key, s.shown_order) for s in after] == [(s.comparison.key, s.shown_order) for s in before]
    assert not {s.lease for s in before} & {s.lease for s in after}
    world.queue.submit(after[0].lease, "ann", Given(opinion=FIRST))
    assert [j.guideline for j in world.judgements()] == ["p/2"]
    assert len(world.take(count=9)) == 3, "each once"


def test_what_somebody_holds_and_no_longer_wants_to_see_is_given_back(tmp_path):
    world = World(tmp_path, items=4, gold_share=0.0)
    assert len(world.take(count=4)) == 4
    left = world.take(count=4, avoid={"language": ("de",)})
    assert {s.comparison.slices["language"] for s in left} == {"en"}
    others = world.take("bob", count=4)
    assert [s.comparison.slices["language"] for s in others] == ["de", "de"], "whoever else comes may have them"


def test_trials_and_repeats_keep_to_what_somebody_does_not_want_to_see(tmp_path):
    world = World(tmp_path, items=0, pass_mark=0.5)
    tests = [compare(i) for i in (10, 11)]
    world.store.add(Entry(c, ()) for c in tests)
    world.add(tests, purpose="trial", expected=FIRST, why="so")
    shown = world.take(count=4, avoid={"language": ("de",)})
    assert [s.comparison.slices["language"] for s in shown] == ["en"]


def test_more_overlap_opens_what_was_done(tmp_path):
    world = World(tmp_path, items=3)
    assert world.judge("ann", count=3) == 3
    world.queue.change("p", settings=ProjectSettings(overlap=2), by="lead")
    assert world.judge("bob", count=3) == 3
    assert world.queue.progress("p").done == 3


@pytest.mark.parametrize(
    ("mode", "opinion", "said"),
    [
        ("pairwise", Thumb(up=True), "got thumb; expected pairwise, as project 'p' asks"),
        ("pairwise", Pairwise(Verdict.TIE, 2), "got 2 with 'tie'"),
        ("thumb", FIRST, "got pairwise; expected thumb"),
        ("ranking", Ranking(((0,), (0, 1))), "expected each of the 2 answers once"),
        ("rating", Rating(({"helpful": 3},)), "got scores of 1 answers; expected 2"),
        ("rating", Rating(({"kind": 3}, {"kind": 3})), "expected a number for each of helpful"),
        ("rating", Rating(({"helpful": 3}, {"helpful": 6})), "rating of helpful: got 6; expected 1 to 5"),
    ],
)
def test_an_opinion_of_another_kind_is_refused_and_the_item_stays(tmp_path, mode, opinion, said):
    world = World(tmp_path, mode, dimensions=("helpful",))
    shown = world.take()[0]
    with pytest.raises(Refused, match=said):
        world.queue.submit(shown.lease, "ann", Given(opinion=opinion))
    assert world.take()[0].lease == shown.lease
    assert world.judgements() == []


@pytest.mark.parametrize(
    ("mode", "opinion"),
    [
        ("thumb", Thumb(up=False)),
        ("ranking", Ranking(((1,), (0,)))),
        ("rating", Rating(({"helpful": 1}, {"helpful": 5}))),
        ("ranking", SKIP),
    ],
)
def test_every_mode_takes_its_own_kind_and_a_skip(tmp_path, mode, opinion):
    world = World(tmp_path, mode, dimensions=("helpful",), answers=1 if mode == "thumb" else 2)
    assert world.judge(opinion=opinion) == 1
    assert world.judgements()[0].opinion == opinion


def test_sides_are_balanced_and_each_persons_own():
    orders = [leases.side_order("ann", str(i), 2) for i in range(1000)]
    # exact binomial p > 0.001 around 500 of 1000 is 448 to 552
    assert 448 <= sum(order == (0, 1) for order in orders) <= 552
    assert orders != [leases.side_order("bob", str(i), 2) for i in range(1000)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"overlap": 0}, "overlap: got 0; expected 1 or more"),
        ({"gold_share": 1.5}, "gold_share: got 1.5; expected a share from 0 to 1"),
        ({"gold_share": 0.5, "repeat_share": 0.5}, "expected less than 1"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(QueueError, match=said):
        ProjectSettings(**settings)


def test_projects_are_begun_once_and_found_by_name(world):
    projects = world.projects
    same = projects.create("p", "pairwise", guideline="Be fair.", by="someone else")
    assert (same.number, same.by) == (1, "lead")
    with pytest.raises(QueueError, match="'p': exists already and differs"):
        projects.create("p", "thumb", guideline="Be fair.", by="lead")
    with pytest.raises(QueueError, match="project 'q': unknown; there are: p"):
        projects.get("q")
    with pytest.raises(QueueError, match="expected one of pairwise"):
        projects.create("x", "arena", guideline="", by="lead")
    with pytest.raises(QueueError, match="a rating has none"):
        projects.create("x", "rating", guideline="", by="lead")
    assert [each.name for each in projects.all()] == ["p"]


def test_a_comparison_that_is_not_there_or_gold_without_an_answer_is_refused(world):
    with pytest.raises(QueueError, match="not in the store; import or generate it first"):
        world.add([compare(999)])
    with pytest.raises(QueueError, match="expected one for gold and trial items"):
        world.add(world.comparisons[:1], purpose="gold")


def test_an_item_whose_text_was_erased_is_not_shown(tmp_path):
    world = World(tmp_path, items=2)
    world.store.erase_text(digest(compare(0).completions[0].text), reason="asked for")
    assert [s.comparison for s in world.take(count=2)] == [compare(1)]


PEOPLE = ("ann", "bob", "cid", "dan")
ACTIONS = st.tuples(st.sampled_from(PEOPLE), st.sampled_from(["take", "judge", "skip", "correct", "release", "wait"]))


class Crowd:
    """People who do one thing after another, each with the leases they ever held."""

    def __init__(self, world):
        self.world, self.clock = world, datetime.now(UTC)
        self.held = {person: [] for person in PEOPLE}

    def act(self, person, action):
        self.clock += timedelta(seconds=61 if action == "wait" else 1)
        held = self.held[person]
        if action == "take":
            held += [s.lease for s in self.world.take(person, 2) if s.lease not in held]
        elif held and action != "wait":
            with suppress(Refused):  # answered otherwise before, or not judged yet; what was stored is what counts
                self.answer(person, action, held)

    def answer(self, person, action, held):
        match action:
            case "judge":
                self.world.queue.submit(held[-1], person, Given(opinion=FIRST))
            case "skip":
                self.world.queue.submit(held[-1], person, Given(opinion=SKIP))
            case "correct":
                self.world.queue.correct(held[0], person, Given(opinion=SECOND))
            case "release":
                self.world.queue.release(held[-1], person)


@settings(max_examples=40, deadline=None)
@given(overlap=st.integers(1, 3), actions=st.lists(ACTIONS, max_size=40))
def test_whatever_people_do_the_overlap_is_kept_and_nobody_judges_an_item_twice(tmp_path_factory, overlap, actions):
    world = World(tmp_path_factory.mktemp("q"), items=3, overlap=overlap, lease_s=60, skips_to_halt=9)
    crowd = Crowd(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "now", lambda: crowd.clock)
        for person, action in actions:
            crowd.act(person, action)
    counted = [j for j in world.judgements() if j.opinion != SKIP and "late" not in j.flags]
    by_item = {}
    for said in counted:
        by_item.setdefault(said.comparison, []).append(said.annotator)
    for people in by_item.values():
        assert len(people) <= overlap
        assert len(people) == len(set(people))
    assert world.queue.progress("p").judgements == len(counted)
    world.store.verify_chain()


def test_many_at_once_never_share_a_place(tmp_path):
    world = World(tmp_path, items=40, overlap=2)

    def work(person):
        given = 0
        while more := world.judge(person, count=3):
            given += more
        return given

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, [f"p{n}" for n in range(6)])) == 80
    by_item = {}
    for said in world.judgements():
        by_item.setdefault(said.comparison, set()).add(said.annotator)
    assert [len(people) for people in by_item.values()] == [2] * 40
    assert len(world.judgements()) == 80


@pytest.mark.parametrize(
    ("on_screen", "order", "about_the_record"),
    [
        (Pairwise(Verdict.FIRST, 3), (0, 1), Pairwise(Verdict.FIRST, 3)),
        (Pairwise(Verdict.FIRST, 3), (1, 0), Pairwise(Verdict.SECOND, 3)),
        (Pairwise(Verdict.TIE), (1, 0), Pairwise(Verdict.TIE)),
        (Thumb(up=False), (0,), Thumb(up=False)),
        # the record's answer 2 stood first, 0 second, 1 third
        (Rating(({"a": 5}, {"a": 3}, {"a": 1})), (2, 0, 1), Rating(({"a": 3}, {"a": 1}, {"a": 5}))),
        (Ranking(((1,), (0, 2))), (2, 0, 1), Ranking(((0,), (1, 2)))),
    ],
)
def test_what_is_said_about_the_screen_is_turned_to_the_record_and_back(on_screen, order, about_the_record):
    assert turned(on_screen, order) == about_the_record
    assert as_it_stood(about_the_record, order) == on_screen


def test_a_judgement_as_shown_is_stored_about_the_record(tmp_path):
    world = World(tmp_path, items=8)
    for shown in world.take(count=8):
        receipt = world.queue.submit(shown.lease, "ann", Given(opinion=FIRST, as_shown=True))
        said = next(j for j in world.judgements() if j.key == receipt.judgement)
        assert said.opinion.verdict is (Verdict.FIRST if shown.shown_order == (0, 1) else Verdict.SECOND)
        again = world.queue.correct(shown.lease, "ann", Given(opinion=Pairwise(Verdict.SECOND, 1), as_shown=True))
        said = next(j for j in world.judgements() if j.key == again.judgement)
        assert said.opinion.verdict is (Verdict.SECOND if shown.shown_order == (0, 1) else Verdict.FIRST)
    orders = {s.shown_order for s in (own.showing for own in world.queue.own("p", "ann", last=8))}
    assert orders == {(0, 1), (1, 0)}  # both orders were put to the test
