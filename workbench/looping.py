"""The closed loop: a policy answers, somebody judges, a version is frozen, a round runs, its child is promoted; again.

What a turn did is a line in a file, added when it is done, so that a killed loop goes on where it was. Every step can be
done twice without harm: answers and judgements are known by their content, versions by their name, rounds by their plan.
"""

import fcntl
import json
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
from preference_data.store import Entry
from workbench.assembly import Where
from workbench.config import (
    MODEL,
    JudgeSettings,
    LoopSettings,
    ProxySettings,
    RewardSettings,
    RoundSettings,
    settings_from,
)
from workbench.drift.metrics import accuracy as held_out_accuracy
from workbench.drift.prequential import Change, accuracy, changed
from workbench.drift.uncertainty import format_estimate, not_enough
from workbench.errors import ConfigError, JournalError
from workbench.foreseeing import foreseen, foreseen_by_reward, margins, undecided
from workbench.judging import (
    PEOPLE,
    Judge,
    Judged,
    by_reward,
    counted,
    judge_all,
    judge_open,
    machines_of,
    of_source,
    require_trust,
    who_judges,
)
from workbench.loop_book import FOLDER, Book, Clock, Turn
from workbench.places import Watch, silent
from workbench.policies.registry import PolicyRecord
from workbench.reward_list import LATEST, RewardModels
from workbench.reward_models import loaded, pinned, train_reward_model
from workbench.rewards import gaps, reward_named
from workbench.rounds.plan import measuring_condition, plan_digest
from workbench.routing import Routed, route, saved
from workbench.tasks import Progress
from workbench.views.reading import Reader
from workbench.workspace import Workspace

ASK_EVERY_S = 5.0
"""Between looks whether people are done."""
FEWEST = 8
"""Judgements a turn needs to be learned from."""


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
    settings = settings.model_copy(update={"round": ws.on_this_machine(settings.round)})
    if settings.reward_model:
        settings = settings.model_copy(update={"reward_model": ws.on_this_machine(settings.reward_model)})
    book = Book(ws, settings)
    machines = machines_of(settings, loaded(ws, settings.round.numerics))
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
        self._routed = None

    def run(self, book: Book, prompts: Sequence[PromptRow], machines: Mapping[JudgeSettings, Judge]) -> int:
        """Do the turn and write it down.

        Returns:
            How many comparisons wait for people; the turn is not done then.
        """
        ws = self._ws
        self._clock = Clock(book, self._number, self._stage.clock, self._stage.watch)
        if book.policy(self._number) is None:
            book.begin(self._number, ws.registry.resolve("champion").digest, self._proxy())
        policy = ws.registry.get(str(book.policy(self._number)))
        source = self._answered(policy, prompts)
        if book.proxy(self._number):
            proxy = settings_from(book.proxy(self._number), ProxySettings, where=f"{book.file}")
            self._routed = self._route(source, policy, proxy)
        known = book.scored(self._number) is not None  # then it is frozen, and nobody is asked again
        judged = counted(ws.store, source, self._judges, most=self._left()) if known else self._judged(source, machines)
        self._clock.mark()
        if judged.waiting and not known:
            return len(judged.waiting)
        if judged.judged - judged.ties < FEWEST:
            raise ConfigError(
                f"turn {self._number}: {judged.judged} judgements, {judged.ties} of them ties; expected {FEWEST} decided ones "
                "or more; look at the answers, then begin a loop of another name with more prompts_per_turn, a higher "
                "generate.temperature or another judge"
            )
        version = self._frozen(source)
        if book.scored(self._number) is None:
            self._score(book, policy, self._judged_at_random(source), version)
        scored = self._settled(book, policy, version)
        settings = settings_from(scored["settings"], RoundSettings, where=f"{book.file}")
        outcome = ws.round(ws.plan(settings)).run(where=self._stage.where, watch=self._clock.watch)
        made = (outcome.round, outcome.child.digest, outcome.state)
        said = (scored["agreed"], scored["change"], scored["proposal"])
        beside = (scored.get("rewarded"), *self._spared(source))
        self._clock.mark()
        took = book.spent(self._number)
        book.end(Turn(self._number, policy.digest, version, judged.judged, judged.ties, *said, *made, took, *beside))
        return 0

    def _settled(self, book: Book, policy: PolicyRecord, version: str) -> dict[str, Any]:
        """What was found out before the round, with the settings it keeps to; other ones where it failed with those."""
        scored = book.scored(self._number) or {}
        state = next((r.state for r in self._ws.journal.rounds() if r.digest == scored.get("round")), "")
        if state != "failed":
            return scored
        before = settings_from(scored["settings"], RoundSettings, where=f"{book.file}")
        wanted = self._exact(self._asked(policy, version).model_copy(update={"update": before.update}))
        if wanted == scored["settings"]:
            return scored
        self._stage.say(f"Turn {self._number}: its round failed, and [round] was changed since; it is planned anew.")
        book.score(**{**scored, "number": scored["scored"], "settings": wanted, "round": self._digest(wanted)})
        return book.scored(self._number) or {}

    def _asked(self, policy: PolicyRecord, version: str) -> RoundSettings:
        return self._settings.round.model_copy(update={"parent": policy.digest, "version": version})

    def _exact(self, settings: RoundSettings) -> dict[str, Any]:
        """A round's settings that mean the same for ever, as plain values."""
        exact = pinned(self._ws, settings)[0].model_copy(update={"gate": self._ws.plan(settings).gate})
        return exact.model_dump(mode="json", exclude_unset=True)

    def _digest(self, settings: dict[str, Any]) -> str:
        return plan_digest(self._ws.plan(settings_from(settings, RoundSettings, where="[round]")))

    def _score(self, book: Book, policy: PolicyRecord, said: Sequence[Entry], version: str) -> None:
        """Put the judgements to the policy, and write down what the round will be: run again it is the same."""
        ws, rewarded = self._ws, self._rewarded(said, version)
        settings = self._asked(policy, version)
        correct = foreseen(ws, policy, said, settings, where=self._stage.where, watch=self._stage.watch)
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
        kept = self._exact(settings)
        book.score(self._number, agreed=agreed.value, change=change.kind, proposal=change.proposal, settings=kept,
                   rewarded=rewarded, round=self._digest(kept))  # fmt: skip
        self._clock.mark()

    def _rewarded(self, said: Sequence[Entry], version: str) -> float | None:
        """Put the judgements to the reward model of the turn before, then train the turn's own, where the loop has any."""
        if self._settings.reward_model is None:
            return None
        ws, before, found = self._ws, f"{self._settings.name}-{self._number - 1}", None
        if before in {record.name for record in RewardModels(ws).entries()}:
            reward = loaded(ws, self._settings.reward_model.numerics)(before)
            agreed = accuracy(foreseen_by_reward(reward, said))
            self._stage.say(
                f"Turn {self._number}: reward model {before} agreed with {format_estimate(agreed)} of them."
            )
            found = agreed.value
        if self._name in {record.name for record in RewardModels(ws).entries()}:
            return found
        wanted = self._settings.reward_model.model_copy(update={"version": version})
        train_reward_model(ws, self._name, wanted, where=self._stage.where, watch=self._stage.watch)
        return found

    def _proxy(self) -> dict[str, Any]:
        """What labels in a turn that begins, by a name that means the same for ever; nothing before there is a reward model."""
        wanted, models = self._settings.proxy, RewardModels(self._ws)
        if wanted is None or (wanted.by == MODEL + LATEST and not models.entries()):
            return {}
        if wanted.by.startswith(MODEL):
            wanted = wanted.model_copy(update={"by": MODEL + models.find(wanted.by.removeprefix(MODEL)).digest})
        return wanted.model_dump(mode="json")

    def _route(self, source: str, policy: PolicyRecord, proxy: ProxySettings) -> Routed:
        """What the proxy is sure of, among what may be judged."""
        ws, most = self._ws, self._left()
        entries = list(of_source(ws.store, source))[: most or None]
        pairs = undecided(entry.comparison for entry in entries)
        asked = [e.comparison for e in entries if e.comparison.key in pairs]
        reward = reward_named(RewardSettings(by=proxy.by), loaded(ws, self._settings.round.numerics))
        found = margins(
            ws, policy, pairs.values(), self._settings.round, where=self._stage.where, watch=self._stage.watch
        )
        by_key = {key: found[pair.key] for key, pair in pairs.items() if pair.key in found}
        routed = route(asked, gaps(reward, asked), by_key, proxy)
        self._stage.say(f"Turn {self._number}: the proxy is sure of {len(routed.sure)} of {len(asked)} comparisons and labels "
                        f"{len(routed.proxy)}; {len(routed.control)} drawn at random are judged either way.")  # fmt: skip
        judged = {entry.comparison.key for entry in entries if entry.judgements}
        todo = [c for c in asked if c.key in routed.proxy - judged]
        for _ in judge_all(ws.store, todo, by_reward(f"reward:{proxy.by}", reward)):
            self._stage.watch(Progress("judge", len(routed.proxy), len(asked), {}))
        return routed

    def _judged_at_random(self, source: str) -> list[Entry]:
        """The turn's comparisons; with a proxy the random share alone, for what it spared and what it left are both chosen."""
        entries = of_source(self._ws.store, source)
        return [e for e in entries if self._routed is None or e.comparison.key in self._routed.control]

    def _spared(self, source: str) -> tuple[float | None, float | None, float | None]:
        if self._routed is None:
            return None, None, None
        found = saved(self._routed, list(of_source(self._ws.store, source)))
        self._stage.say(
            f"Turn {self._number}: the proxy spared {found.share:.0%} of the judgements; on the random share it is right on "
            f"{format_estimate(found.sure)} of what it is sure of, and on {format_estimate(found.random)} of all."
        )
        return found.share, found.sure.value, found.random.value

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
        unjudged = [e.comparison for e in list(of_source(store, source))[: most or None] if not e.judgements]
        for one in self._judges:
            has_work = one.by != PEOPLE and any(who_judges(c, self._judges) == one for c in unjudged)
            if has_work and (found := require_trust(store, one, machines[one])):
                stage.say(f"Turn {self._number}: {one.by} agrees with people on {format_estimate(found.agrees)}; it overrode its "
                          f"receipt in {format_estimate(found.overrides)}, rightly in {format_estimate(found.right)}.")  # fmt: skip
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
            self._clock.leave_out(ASK_EVERY_S)
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
        return changed(correct, held_out_accuracy(held_out) if held_out else not_enough(0, "nothing was taught"))
