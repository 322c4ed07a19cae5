"""The journal: each step is done once, whatever is killed, paused, damaged or asked to stop."""

import ast
import multiprocessing
import os
import platform
import signal
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from preference_data.database import reading, writing
from preference_data.errors import StoreError
from tests.small_round import ROUND, run_small_round, write_base
from workbench import failpoints
from workbench.errors import ArtifactError, JournalError, NumericsError, StopRequested
from workbench.objects import Objects
from workbench.policies.registry import Registry
from workbench.rounds.claims import Claim
from workbench.rounds.journal import Journal
from workbench.rounds.leases import Timing, is_gone, this_process
from workbench.schema import open_ledger
from workbench.tasks import Progress

# One clean process that has imported everything and forks: a kill costs a fork, not an interpreter's start.
FORKS = multiprocessing.get_context("forkserver")


class Clock:
    """A clock that moves when told, or when somebody sleeps."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def workspace(tmp_path):
    return open_ledger(f"sqlite:///{tmp_path}/ledger.db"), Objects(tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(workspace, clock):
    return begun(workspace, clock, "ada")


def begun(workspace, clock, owner, **timing):
    journal = Journal(*workspace, owner, timing=Timing(**timing), clock=clock, sleep=clock.sleep)
    journal.begin(ROUND, 1, '{"number":1}')
    return journal


def write(content):
    return lambda output, _: (output / "result").write_text(content)


def never(_output, _report):
    raise AssertionError("a done step ran again")


def only_step(journal):
    (step,) = journal.status(ROUND).steps
    return step


# -- a step, undisturbed ------------------------------------------------------------------------------------------


def test_a_step_is_done_once_and_remembered(workspace, journal):
    output = journal.step(ROUND, "score", "inputs", write("x"))
    assert (workspace[1].path(output) / "result").read_text() == "x"
    assert journal.step(ROUND, "score", "inputs", never) == output
    step = only_step(journal)
    assert (step.name, step.state, step.output, step.attempts, step.alive) == ("score", "done", output, 1, False)
    assert journal.outputs() == {output}


def test_nobody_holds_the_database_while_work_runs(workspace, journal):
    def work(output, _report):
        with writing(workspace[0]) as connection:  # would wait for itself
            connection.execute(text("SELECT 1"))
        (output / "result").write_text("x")

    output = journal.step(ROUND, "score", "inputs", work)
    assert (workspace[1].path(output) / "result").read_text() == "x"


def test_steps_are_listed_in_the_order_they_were_begun(journal):
    for name in ("score", "optimise", "evaluate"):
        journal.step(ROUND, name, name, write(name))
    assert [s.name for s in journal.status(ROUND).steps] == ["score", "optimise", "evaluate"]


def test_other_inputs_are_refused(journal):
    journal.step(ROUND, "score", "a" * 64, write("x"))
    with pytest.raises(JournalError, match=r"step score .* was begun with inputs aaaaaaaaaaaa, now given bbbb"):
        journal.step(ROUND, "score", "b" * 64, never)


def test_beginning_again_changes_nothing_and_another_plan_is_refused(journal):
    first = journal.begin(ROUND, 1, '{"number":1}')
    assert journal.rounds() == (first,)
    assert first.state == "planned"
    with pytest.raises(JournalError, match="another plan"):
        journal.begin(ROUND, 1, '{"number":2}')
    assert journal.rounds() == (first,)


def test_what_was_never_begun_is_refused(workspace, clock):
    journal = Journal(*workspace, "ada", clock=clock)
    for call in (journal.status, lambda r: journal.step(r, "score", "i", never), lambda r: journal.finish(r, "failed")):
        with pytest.raises(JournalError, match="round nothing"):
            call("nothing")


# -- faults of the work -------------------------------------------------------------------------------------------


def test_a_failed_step_is_open_again_at_once(workspace, journal):
    def fails(output, _report):
        (output / "half").write_text("x")
        raise NumericsError("loss is nan")

    with pytest.raises(NumericsError):
        journal.step(ROUND, "optimise", "inputs", fails)
    assert (only_step(journal).state, only_step(journal).attempts) == ("open", 1)
    assert list((workspace[1].root / "staging").iterdir()) == []
    journal.step(ROUND, "optimise", "inputs", write("x"))
    assert (only_step(journal).state, only_step(journal).attempts) == ("done", 2)


def test_a_full_disk_in_the_work_says_so(workspace, journal):
    def fills(output, _report):
        raise OSError(28, "No space left on device", str(output / "model.safetensors"))

    with pytest.raises(ArtifactError, match=r"model.safetensors: cannot be written: No space left.*workbench gc"):
        journal.step(ROUND, "optimise", "inputs", fills)
    assert only_step(journal).state == "open"


def test_a_damaged_output_is_refused_and_a_lost_one_is_made_again(workspace, journal):
    output = journal.step(ROUND, "score", "inputs", write("x"))
    (workspace[1].path(output) / "result").write_text("y")
    with pytest.raises(ArtifactError, match=r"result: damaged.*remove the folder"):
        journal.step(ROUND, "score", "inputs", never)
    workspace[1].path(output).rename(workspace[1].root / "away")
    assert journal.step(ROUND, "score", "inputs", write("x")) == output
    workspace[1].verify(output)


# -- leases and fences --------------------------------------------------------------------------------------------


def test_a_paused_owner_cannot_commit_after_it_was_taken_over(workspace, clock):
    ada, bob = begun(workspace, clock, "ada"), begun(workspace, clock, "bob")

    def pauses(output, _report):
        clock.now += 61  # longer than the lease of 60 s
        bob.step(ROUND, "optimise", "inputs", write("of bob"))
        (output / "result").write_text("of ada")

    with pytest.raises(JournalError, match=r"attempt 1 was taken over.*refused"):
        ada.step(ROUND, "optimise", "inputs", pauses)
    step = only_step(ada)
    assert (step.state, step.owner, step.attempts) == ("done", "bob", 2)
    assert (workspace[1].path(step.output) / "result").read_text() == "of bob"


def test_a_paused_owner_that_fails_does_not_open_the_step_of_the_next(workspace, clock):
    ada, bob = begun(workspace, clock, "ada"), begun(workspace, clock, "bob")

    def pauses(_output, _report):
        clock.now += 61
        bob.step(ROUND, "optimise", "inputs", during_bob)

    def during_bob(output, _report):
        ada._claims.release(Claim(ROUND, "optimise", 1))  # what ada does when its work fails late
        assert (only_step(bob).state, only_step(bob).owner) == ("claimed", "bob")
        (output / "result").write_text("of bob")

    with pytest.raises(JournalError, match="taken over"):
        ada.step(ROUND, "optimise", "inputs", pauses)
    assert (only_step(bob).state, only_step(bob).owner) == ("done", "bob")


def test_a_living_owner_is_waited_for_and_then_named(workspace, clock):
    ada, bob = begun(workspace, clock, "ada", lease=1000), begun(workspace, clock, "bob", patience=90, poll=10)

    def meanwhile(output, _report):
        before = clock.now
        with pytest.raises(JournalError, match="held by ada, which is alive; waited 90 s"):
            bob.step(ROUND, "score", "inputs", never)
        assert clock.now == before + 90
        (output / "result").write_text("of ada")

    ada.step(ROUND, "score", "inputs", meanwhile)
    assert only_step(ada).owner == "ada"


def test_waiting_ends_when_the_lease_runs_out(workspace, clock):
    ada, bob = begun(workspace, clock, "ada", lease=60), begun(workspace, clock, "bob", poll=1)
    started = clock.now

    def hangs(_output, _report):
        bob.step(ROUND, "score", "inputs", write("of bob"))

    with pytest.raises(JournalError, match="taken over"):
        ada.step(ROUND, "score", "inputs", hangs)
    assert clock.now == started + 60
    assert only_step(bob).owner == "bob"


def test_a_heartbeat_keeps_the_lease(workspace, clock):
    ada, bob = begun(workspace, clock, "ada", heartbeat=0.02), begun(workspace, clock, "bob", patience=0)

    def long(output, _report):
        for _ in range(3):
            clock.now += 50  # three leases in all, but never one without a beat
            lease = renewed(workspace[0], clock)
            assert lease == clock.now + 60
        with pytest.raises(JournalError, match="held by ada"):
            bob.step(ROUND, "score", "inputs", never)
        (output / "result").write_text("x")

    ada.step(ROUND, "score", "inputs", long)


def renewed(engine, clock):
    """Wait for the lease to be that of now."""
    waiting = threading.Event()
    for _ in range(500):
        with reading(engine) as connection:
            lease = connection.execute(text("SELECT lease_until FROM step")).scalar_one()
        if lease == clock.now + 60:
            break
        waiting.wait(0.01)
    return lease


def test_a_step_taken_over_is_told_so_at_its_next_report(workspace, clock):
    ada, bob = begun(workspace, clock, "ada", heartbeat=3600), begun(workspace, clock, "bob")

    def pauses(_output, report):
        clock.now += 61
        bob.step(ROUND, "optimise", "inputs", write("of bob"))
        for _ in range(500):
            report(Progress("optimise", 1, 2, {}))
            waiting.wait(0.01)
        raise AssertionError("never told")

    waiting = threading.Event()
    ada._timing = Timing(heartbeat=0.02)
    with pytest.raises(JournalError, match="taken over by another process"):
        ada.step(ROUND, "optimise", "inputs", pauses)
    assert only_step(bob).owner == "bob"


def test_a_dead_process_of_this_host_is_taken_over_at_once(workspace, clock):
    gone = FORKS.Process(target=os.getpid)
    gone.start()
    gone.join()
    owner = f"{platform.node()}:{gone.pid}:123.00"
    assert is_gone(owner)
    with writing(workspace[0]) as connection:
        connection.execute(text(
            "INSERT INTO step (round, name, position, state, fence, owner, lease_until, input_digest, attempts) "
            "VALUES (:round, 'score', 0, 'claimed', 7, :owner, 9e9, 'inputs', 7)"
        ), {"round": ROUND, "owner": owner})  # fmt: skip
    journal = begun(workspace, clock, "ada")
    started = clock.now
    journal.step(ROUND, "score", "inputs", write("x"))
    assert clock.now == started
    assert (only_step(journal).state, only_step(journal).attempts) == ("done", 8)


def test_only_the_dead_of_this_host_are_known_to_be_gone():
    host, pid, started = this_process().rsplit(":", 2)
    assert not is_gone(this_process())
    assert is_gone(f"{host}:{pid}:{float(started) - 1:.2f}")  # the id was given to another process since
    assert not is_gone(f"elsewhere:{pid}:0.00")
    assert not is_gone("ada")


# -- progress and stopping ----------------------------------------------------------------------------------------


def test_progress_is_bounded_in_rate_but_first_and_last_are_kept(workspace, journal):
    def work(output, report):
        for done in range(101):
            assert report(Progress("optimise", done, 100, {"loss": 1 / (done + 1)})) is False
        (output / "result").write_text("x")

    journal.step(ROUND, "optimise", "inputs", work)
    events = journal.events(ROUND)
    assert [e.progress.done for e in events][:: len(events) - 1] == [0, 100]
    assert len(events) < 20
    assert events[0].progress == Progress("optimise", 0, 100, {"loss": 1.0})
    assert journal.events(ROUND, after=events[-2].id) == [events[-1]]
    assert journal.events("another round") == []


def test_numbers_that_are_none_survive(journal):
    journal.report(ROUND)(Progress("optimise", 0, 1, {"loss": float("nan"), "grad_norm": float("-inf")}))
    facts = journal.events(ROUND)[0].progress.facts
    assert facts["loss"] != facts["loss"]
    assert facts["grad_norm"] == float("-inf")


def test_a_stop_reaches_the_work_and_running_again_goes_on(workspace, clock):
    journal = begun(workspace, clock, "ada", report=0.0)
    reached = []

    def work(output, report):
        for done in range(4):
            reached.append(done)
            if done == 2:
                journal.request_stop(ROUND, by="ada")
            if report(Progress("optimise", done, 4, {})):
                raise StopRequested("stopped at 2")
        (output / "result").write_text("x")

    with pytest.raises(StopRequested, match="stopped at 2"):
        journal.step(ROUND, "optimise", "inputs", work)
    assert reached == [0, 1, 2]
    assert only_step(journal).state == "open"
    assert journal.status(ROUND).stop_requested
    with pytest.raises(StopRequested, match="before step optimise"):
        journal.step(ROUND, "optimise", "inputs", never)
    journal.finish(ROUND, "stopped", message="by ada")
    journal.clear_stop(ROUND)
    journal.step(ROUND, "optimise", "inputs", write("x"))
    assert journal.status(ROUND).round.state == "running"
    assert not journal.status(ROUND).stop_requested


def test_a_round_ends_once(journal):
    journal.finish(ROUND, "failed", message="loss is nan")
    journal.finish(ROUND, "rejected", child="c", verdict={"passed": False}, message="tax")
    journal.finish(ROUND, "rejected", child="c")
    with pytest.raises(JournalError, match=r"ended as rejected \(child c\); it cannot now end as promoted"):
        journal.finish(ROUND, "promoted", child="c")
    found = journal.status(ROUND).round
    assert (found.state, found.child, found.verdict, found.message) == ("rejected", "c", {"passed": False}, "tax")


@pytest.mark.parametrize("table", ["event", "alias_event", "measurement", "score"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET {}", "DELETE FROM {}"])
def test_what_was_written_cannot_be_changed(tmp_path, table, verb):
    write_base(tmp_path / "base")
    run_small_round(tmp_path)
    engine = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    column = {"event": "done = 9", "alias_event": "new = 'x'", "measurement": "value = 9", "score": "logp = 9"}[table]
    with pytest.raises(StoreError, match=f"{table} is append-only"), writing(engine) as connection:
        connection.execute(text(verb.format(table, column)))


# -- killed anywhere ----------------------------------------------------------------------------------------------


def killed_at(folder, name):
    """Whether a round was killed there; otherwise it must have ended well."""
    process = FORKS.Process(target=run_small_round, args=(folder, name))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def facts(folder):
    """What must not depend on having been killed."""
    engine, objects = open_ledger(f"sqlite:///{folder}/ledger.db"), Objects(folder)
    status = Journal(engine, objects).status(ROUND)
    for step in status.steps:
        objects.verify(step.output)
    with reading(engine) as connection:
        counts = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("policy", "alias_event", "measurement", "score", "round", "step")
        }
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    champion = Registry(engine, objects).resolve("champion")
    return {
        "steps": [(s.name, s.state, s.output) for s in status.steps],
        "round": (status.round.state, status.round.child),
        "champion": (champion.digest, champion.name),
        "counts": counts,
        "objects": sorted(p.name for p in (folder / "objects").iterdir()),
        "staging": list((folder / "staging").iterdir()),
    }


@pytest.fixture
def memory():
    """A folder in memory where there is one: a killed process loses nothing that was written, flushed or not."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_base(folder / "base")
    run_small_round(folder)
    return facts(folder)


def test_the_uninterrupted_round_is_as_worked_out(uninterrupted):
    # base and child; first base and promotion; two items; one example; each step once
    expected = {"policy": 2, "alias_event": 2, "measurement": 2, "score": 1, "round": 1, "step": 3}
    assert uninterrupted["counts"] == expected
    assert [(name, state) for name, state, _ in uninterrupted["steps"]] == [
        ("score", "done"), ("optimise", "done"), ("evaluate", "done"),
    ]  # fmt: skip
    assert uninterrupted["round"][0] == "promoted"
    assert uninterrupted["champion"][1] == "round-1"


THREE_STEPS = ("journal.claim", "journal.step", "journal.complete", "objects.publish")
BASE_AND_CHILD = ("registry.add",)
POINTS = [
    f"{name}:{hit}"
    for name in failpoints.FAILPOINTS
    if not name.startswith("training.")  # this round trains nothing
    for hit in range(1, 1 + (3 if name.startswith(THREE_STEPS) else 2 if name.startswith(BASE_AND_CHILD) else 1))
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_failpoint_it_ends_the_same(memory, uninterrupted, point):
    write_base(memory / "base")
    assert killed_at(memory, point), "never reached"
    assert not killed_at(memory, "")
    assert facts(memory) == uninterrupted
    assert len((memory / "began").read_text().split()) <= 4  # at most the step it died in is begun again


def test_killed_again_and_again_at_any_moment_it_ends_the_same(tmp_path, uninterrupted):
    write_base(tmp_path / "base")
    for milliseconds in (5, 20, 35, 50, 65, 80, 100, 120, 150):
        process = FORKS.Process(target=run_small_round, args=(tmp_path,))
        process.start()
        process.join(milliseconds / 1000)
        process.kill()
        process.join()
    run_small_round(tmp_path)
    assert facts(tmp_path) == uninterrupted


def test_two_processes_with_one_round_do_each_step_once(tmp_path, uninterrupted):
    write_base(tmp_path / "base")
    both = [FORKS.Process(target=run_small_round, args=(tmp_path, "", 3600)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted((tmp_path / "began").read_text().split()) == ["evaluate", "optimise", "score"]
    assert facts(tmp_path) | {"staging": []} == uninterrupted


def test_every_failpoint_in_the_code_is_listed():
    found = set()
    for path in Path(failpoints.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                found.add(ast.literal_eval(node.args[0]))
    assert found == set(failpoints.FAILPOINTS)


def test_the_ledger_is_a_sound_database_with_the_tables_of_the_schema(workspace):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from workbench.schema import metadata

    with reading(workspace[0]) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    file = sqlite3.connect(workspace[0].url.database)
    strict = dict(file.execute("SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'").fetchall())
    file.close()
    assert {name for name in metadata.tables if strict[name] != 1} == set()
