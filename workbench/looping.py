"""The closed loop: a policy answers, somebody judges, a version is frozen, a round runs, its child is promoted; again.

What a turn did is a line in a file, added when it is done, so that a killed loop goes on where it was. Every step can be
done twice without harm: answers and judgements are known by their content, versions by their name, rounds by their plan.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, NamedTuple

from preference_data.asking import ask
from preference_data.freeze import FreezeRule
from preference_data.projects import ProjectSettings
from preference_data.prompt_file import PromptRow, read_prompts
from preference_data.reading import plain_name
from preference_data.records import digest
from workbench.assembly import Where
from workbench.config import JudgeSettings, LoopSettings, RoundSettings, settings_from
from workbench.drift.metrics import accuracy as held_out_accuracy
from workbench.drift.prequential import Change, accuracy, changed
from workbench.drift.uncertainty import format_estimate
from workbench.errors import ConfigError, JournalError
from workbench.foreseeing import foreseen, foreseen_by_reward
from workbench.judging import PEOPLE, Judge, Judged, counted, judge_named, judge_open, of_source, require_trust
from workbench.places import Watch, silent
from workbench.policies.registry import PolicyRecord
from workbench.reward_models import RewardModels, loaded, pinned, train_reward_model
from workbench.rounds.plan import measuring_condition
from workbench.tasks import Progress
from workbench.views.reading import Reader
from workbench.workspace import Workspace

FOLDER = "loops"
ASK_EVERY_S = 5.0
"""Between looks whether people are done."""
FEWEST = 8
"""Judgements a turn needs to be learned from."""


class Turn(NamedTuple):
    """What came of one turn.

    Attributes:
        policy: digest of the policy that answered.
        judged: how many judgements, and how many of them ties.
        agreed: share of the new judgements the policy agreed with before it learned from them; None for none.
        rewarded: the same of the reward model of the turn before.
        change: what the detector says of it.
        proposal: what to do about a change; empty where there is none.
        round, child, state: of the round.
    """

    number: int
    policy: str
    version: str
    judged: int
    ties: int
    agreed: float | None
    change: str
    proposal: str
    round: str
    child: str
    state: str
    seconds: float
    rewarded: float | None = None


class Ended(NamedTuple):
    """How a loop ended.

    Attributes:
        turns: all of them, those of earlier runs included.
        why: it ended.
        waiting: comparisons that wait for people.
    """

    turns: tuple[Turn, ...]
    why: str
    waiting: int = 0


@dataclass(frozen=True)
class Stage:
    """What a loop tells and asks while it runs.

    Attributes:
        say: called with a sentence before each part.
        watch: told the progress of each step.
        wait: wait for people; False ends the loop where they are needed.
        where: answers and rounds are computed in this process or on Ray.
        clock, sleep: seconds.
    """

    say: Callable[[str], None] = lambda _: None
    watch: Watch = silent
    wait: bool = True
    where: Where = "auto"
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class _Book:
    """The file of a loop: what it is, and each turn that is done."""

    def __init__(self, ws: Workspace, settings: LoopSettings) -> None:
        self.file = ws.root / FOLDER / settings.name / "book.jsonl"
        self._cut_torn_line()
        identity = digest([str(settings.prompts.resolve()), settings.prompts_per_turn])
        lines = self._lines()
        if not lines:
            self._add({"loop": settings.name, "identity": identity})
        elif lines[0].get("identity") != identity:
            raise ConfigError(
                f"loop {settings.name!r} was begun with other prompts or prompts_per_turn, which say what a turn is; give them as "
                f"they were (all else may change), or choose another name; what it did is in {self.file}"
            )

    def turns(self) -> tuple[Turn, ...]:
        return tuple(Turn(**line["done"]) for line in self._lines() if "done" in line)

    def policy(self, number: int) -> str | None:
        """Who answers in a turn that was begun."""
        return next((line["policy"] for line in self._lines() if line.get("begun") == number), None)

    def begin(self, number: int, policy: str) -> None:
        self._add({"begun": number, "policy": policy})

    def scored(self, number: int) -> dict[str, Any] | None:
        """What was found out before a turn's round, and the round's settings."""
        return next((line for line in self._lines() if line.get("scored") == number), None)

    def score(self, number: int, **found: Any) -> None:
        self._add({"scored": number, **found})

    def end(self, turn: Turn) -> None:
        self._add({"done": turn._asdict()})

    def _add(self, line: Mapping[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _cut_torn_line(self) -> None:
        """Drop a last line that a crash cut short: nobody acted on it."""
        if self.file.exists() and not (text := self.file.read_bytes()).endswith(b"\n"):
            os.truncate(self.file, text.rfind(b"\n") + 1)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]


def run_loop(ws: Workspace, settings: LoopSettings, stage: Stage) -> Ended:
    """Run a loop to its end, or go on with it.

    Args:
        ws: the workspace.
        settings: of the loop.
        stage: how it runs, and who is told.

    Raises:
        ConfigError: the settings are not those it was begun with, or a judge in them does not exist.
        JournalError: another process runs it.
        StopRequested: a round was asked to stop; the loop goes on when run again.
    """
    (ws.root / FOLDER / settings.name).mkdir(parents=True, exist_ok=True)
    with (ws.root / FOLDER / settings.name / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"loop {settings.name!r} is being run by another process; let it end, or stop it"
            ) from error
        return _run(ws, settings, stage)


def _run(ws: Workspace, settings: LoopSettings, stage: Stage) -> Ended:
    book = _Book(ws, settings)
    models = loaded(ws, settings.round.numerics)
    machines = {one: judge_named(one, models) for judges in settings.judges for one in judges if one.by != PEOPLE}
    prompts = read_prompts(settings.prompts)
    if not prompts:
        raise ConfigError(f"{settings.prompts}: no prompts; give at least one per line")
    while True:
        turns = book.turns()
        if why := _ended(settings, turns):
            return Ended(turns, why)
        one = _OneTurn(ws, settings, stage, turns)
        waiting = one.run(book, prompts, machines)
        if waiting:
            why = f"{waiting} comparisons wait for people; run the loop again when they are judged"
            return Ended(book.turns(), why, waiting)


def _ended(settings: LoopSettings, turns: Sequence[Turn]) -> str:
    """Why no further turn is begun; empty where one is."""
    labels, hours = sum(turn.judged for turn in turns), sum(turn.seconds for turn in turns) / 3600
    if turns and turns[-1].state == "rejected" and settings.on_rejection == "stop":
        return (
            f"the gate refused the child of turn {turns[-1].number}; look at `workbench drift`; to go on from the champion, change "
            "the settings of [round] and set on_rejection = 'go on'"
        )
    if len(turns) >= settings.turns:
        return f"all {settings.turns} turns are done"
    if settings.most_labels and settings.most_labels - labels < 2 * FEWEST:
        return f"{labels} of at most {settings.most_labels} judgements are used, and a turn needs {2 * FEWEST}"
    if settings.most_hours and hours >= settings.most_hours:
        return f"{hours:.1f} hours of at most {settings.most_hours:g} are used"
    return ""


class _OneTurn:
    """One turn, from its prompts to its round; every part may have been done before."""

    def __init__(self, ws: Workspace, settings: LoopSettings, stage: Stage, before: Sequence[Turn]) -> None:
        self._ws, self._settings, self._stage, self._before = ws, settings, stage, before
        self._number = len(before) + 1
        self._name = f"{settings.name}-{self._number}"
        self._judges = settings.judges_of(self._number)
        self._waited = 0.0

    def run(self, book: _Book, prompts: Sequence[PromptRow], machines: Mapping[JudgeSettings, Judge]) -> int:
        """Do the turn and write it down.

        Returns:
            How many comparisons wait for people; the turn is not done then.
        """
        ws, began = self._ws, self._stage.clock()
        if book.policy(self._number) is None:
            book.begin(self._number, ws.registry.resolve("champion").digest)
        policy = ws.registry.get(str(book.policy(self._number)))
        source = self._answered(policy, prompts)
        judged = self._judged(source, machines)
        if judged.waiting:
            return len(judged.waiting)
        if judged.judged - judged.ties < FEWEST:
            raise ConfigError(
                f"turn {self._number}: {judged.judged} judgements, {judged.ties} of them ties; expected {FEWEST} decided ones "
                "or more; look at the answers, then begin a loop of another name with more prompts_per_turn, a higher "
                "generate.temperature or another judge"
            )
        version = self._frozen(source)
        if book.scored(self._number) is None:
            self._score(book, policy, source, version)
        scored = book.scored(self._number) or {}
        settings = settings_from(scored["settings"], RoundSettings, where=f"{book.file}")
        outcome = ws.round(ws.plan(settings)).run(where=self._stage.where, watch=self._stage.watch)
        made = (outcome.round, outcome.child.digest, outcome.state)
        said = (scored["agreed"], scored["change"], scored["proposal"])
        took = self._stage.clock() - began - self._waited
        rewarded = scored.get("rewarded")
        book.end(Turn(self._number, policy.digest, version, judged.judged, judged.ties, *said, *made, took, rewarded))
        return 0

    def _score(self, book: _Book, policy: PolicyRecord, source: str, version: str) -> None:
        """Put the judgements to the policy, and write down what the round will be: run again it is the same."""
        ws, rewarded = self._ws, self._rewarded(source, version)
        settings = self._settings.round.model_copy(update={"parent": policy.digest, "version": version})
        correct = foreseen(
            ws, policy, of_source(ws.store, source), settings, where=self._stage.where, watch=self._stage.watch
        )
        change = self._changed(policy, correct, settings)
        if change.proposal:
            self._stage.say(
                f"Turn {self._number}: {change.proposal} (accuracy since the change {format_estimate(change.after)})."
            )
        if change.kind == "contrary" and self._settings.on_change == "declare":
            settings = settings.model_copy(update={"update": True})
        agreed = accuracy(correct)
        self._stage.say(f"Turn {self._number}: {policy.name} agreed with {format_estimate(agreed)} of the judgements before it "
                        "learned from them; now it learns.")  # fmt: skip
        exact = pinned(ws, settings)[0].model_copy(update={"gate": ws.plan(settings).gate})
        kept = exact.model_dump(mode="json", exclude_unset=True)
        book.score(self._number, agreed=agreed.value, change=change.kind, proposal=change.proposal, settings=kept,
                   rewarded=rewarded)  # fmt: skip

    def _rewarded(self, source: str, version: str) -> float | None:
        """Put the judgements to the reward model of the turn before, then train the turn's own, where the loop has any."""
        if self._settings.reward_model is None:
            return None
        ws, before, found = self._ws, f"{self._settings.name}-{self._number - 1}", None
        if before in {record.name for record in RewardModels(ws).entries()}:
            reward = loaded(ws, self._settings.reward_model.numerics)(before)
            agreed = accuracy(foreseen_by_reward(reward, of_source(ws.store, source)))
            self._stage.say(
                f"Turn {self._number}: reward model {before} agreed with {format_estimate(agreed)} of them."
            )
            found = agreed.value
        wanted = self._settings.reward_model.model_copy(update={"version": version})
        train_reward_model(ws, self._name, wanted, where=self._stage.where, watch=self._stage.watch)
        return found

    def _answered(self, policy: PolicyRecord, prompts: Sequence[PromptRow]) -> str:
        """The source of the policy's answers to the turn's prompts."""
        settings = self._settings
        first = (self._number - 1) * settings.prompts_per_turn % len(prompts)
        mine = list(islice(cycle(prompts), first, first + min(settings.prompts_per_turn, len(prompts))))
        file = self._ws.root / FOLDER / settings.name / f"{settings.name}-turn-{self._number}.jsonl"
        rows = [
            {"messages": [m._asdict() for m in p.prompt.messages], "slices": {**p.slices, "turn": self._name}}
            for p in mine
        ]
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        source = f"generated:{plain_name(file)}"
        if not any(True for _ in of_source(self._ws.store, source)):
            self._stage.say(f"Turn {self._number}: {policy.name} answers {len(mine)} prompts.")
            sampling = settings.generate.model_copy(update={"seed": settings.generate.seed + self._number})
            self._ws.generate(
                file, policy=policy.digest, settings=sampling, where=self._stage.where, watch=self._stage.watch
            )
        return source

    def _judged(self, source: str, machines: Mapping[JudgeSettings, Judge]) -> Judged:
        """Have machines judge, and wait for people."""
        store, stage = self._ws.store, self._stage
        most = self._left()
        for one in self._judges:
            if one.by != PEOPLE:
                require_trust(store, one, machines[one])
        names = ", ".join(one.by for one in self._judges)
        stage.say(f"Turn {self._number}: judged by {names}.")

        def tell(done: int, of: int) -> None:
            stage.watch(Progress("judge", done, of, {}))

        found = judge_open(store, source, self._judges, machines, most=most, tell=tell)
        if found.waiting:
            self._ask(source, found.waiting)
        while found.waiting and stage.wait:
            stage.watch(Progress("judge", found.judged, found.judged + len(found.waiting), {}))
            stage.sleep(ASK_EVERY_S)
            self._waited += ASK_EVERY_S
            found = counted(store, source, self._judges, most=most)
        return found

    def _left(self) -> int:
        """Judgements this turn may use; 0 for no limit."""
        if not self._settings.most_labels:
            return 0
        return self._settings.most_labels - sum(t.judged for t in self._before)

    def _ask(self, source: str, waiting: Collection[str]) -> None:
        """Put what people are to judge on the annotation page, as a project of the turn."""
        ask(
            self._ws.store, self._name, "pairwise", guideline="", settings=ProjectSettings(), sources=(source,),
            by=f"loop {self._settings.name}", only=frozenset(waiting),
        )  # fmt: skip
        self._stage.say(f"Turn {self._number}: waiting for people to judge project {self._name!r} on the page.")

    def _frozen(self, source: str) -> str:
        """The name of the turn's version."""
        if self._name not in {entry.name for entry in self._ws.version_entries()}:
            self._ws.freeze(name=self._name, rule=FreezeRule(sources=(source,), machines=self._settings.machines))
        elif list(self._ws.version(self._name).manifest.rule.get("sources", ())) != [source]:
            raise ConfigError(
                f"version {self._name!r} exists and is not this turn's; begin a loop of another name, whose versions are free"
            )
        return self._name

    def _changed(self, policy: PolicyRecord, correct: Sequence[bool], settings: RoundSettings) -> Change:
        """Whether people want something else than what the policy was taught last; nothing to compare with at first."""
        taught = policy.version
        condition = measuring_condition(self._ws.plan(settings))
        held_out = (
            Reader(self._ws.ledger, condition).series(policy.digest, f"retention/{taught}", "margin")
            if taught
            else None
        )
        expected = held_out_accuracy(held_out).value if held_out else None
        if expected is None:
            return Change("none", None, None, accuracy(correct))
        return changed(correct, expected)
