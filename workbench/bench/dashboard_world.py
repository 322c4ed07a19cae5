"""A workspace whose ledger holds many rounds and suites, made up, for the dashboard to be measured on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil

from preference_data.database import writing
from preference_data.records import Pair, Prompt, canonical_json, digest
from preference_data.versions import write_version
from workbench.bench.page_world import START_S, free_port
from workbench.config import RoundSettings
from workbench.errors import WorkbenchError
from workbench.places import CONFIG, Places
from workbench.policies import champion
from workbench.policies.records import PolicyRecord
from workbench.rounds.gate import Measured, judge
from workbench.rounds.plan import condition_of, plan_as_json, plan_digest
from workbench.tasks import Anchor, Item, Plan, PolicyRef, VersionRef
from workbench.views.kept import Numbers

SUITES_ASIDE = 10
"""Of the suites, those of capability; the others are versions."""
DOMAINS = ("code", "letters", "facts", "health", "maths")
READY = "ready.json"


_SETTINGS = RoundSettings(method="plain")


class Scale(NamedTuple):
    """How large the ledger is."""

    rounds: int
    suites: int
    items: int


class DashboardWorld:
    """The workspace, made once per folder."""

    def __init__(self, folder: Path, scale: Scale, tell: Callable[[str], None]) -> None:
        """Fill a new workspace, or take the one that is there."""
        self.scale, self._rng = scale, np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CONFIG).exists():
            (folder / CONFIG).write_text('base_name = "base"\n', encoding="utf-8")
        self.places = Places(folder)
        self.port = free_port()
        if not (folder / READY).exists():
            self._fill(tell)
            (folder / READY).write_text(json.dumps(scale), encoding="utf-8")
        tell("computing what pages read")
        lineage = [each.digest for each in self.places.registry.policies()]
        Numbers(self.places.engine, CONDITION).keep(lineage, lambda done, of: tell(f"numbers of policy {done} of {of}"))

    @property
    def address(self) -> str:
        """Where the page is served."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[psutil.Process]:
        """The page's process, up; ended with the block."""
        url = self.places.store.engine.url.render_as_string(hide_password=False)
        environment = {**os.environ, "WORKBENCH_DATABASE": url, "WORKBENCH_WORKSPACE": str(self.places.root)}
        command = [sys.executable, "-m", "ui", "--port", str(self.port)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + START_S
            while time.monotonic() < end and process.poll() is None:
                try:
                    if httpx.get(f"{self.address}/healthz").status_code == httpx.codes.OK:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            else:
                raise WorkbenchError(f"the page did not start within {START_S:.0f} s; try `workbench page` by hand")
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)

    def _fill(self, tell: Callable[[str], None]) -> None:
        versions = [self._version(k) for k in range(self.scale.suites - SUITES_ASIDE)]
        registry = self.places.registry
        base = registry.add(_policy(digest("base"), None, "base", {}))
        with writing(self.places.engine) as connection:
            champion.move(connection, "promote", base.digest, expected=None, reason="first base", by="bench")
        lineage, history = [base], list[str]()
        margins = self._measure(base.digest, versions, None)
        for number in range(1, self.scale.rounds + 1):
            tell(f"round {number} of {self.scale.rounds} into the ledger")
            version = versions[(number - 1) % len(versions)][0]
            plan = _plan(lineage, version, history)
            child = registry.add(_policy(digest(f"policy {number}"), lineage[-1].digest, f"round-{number}",
                                         {"round": plan_digest(plan), "version": version}))  # fmt: skip
            margins = self._measure(child.digest, versions, margins, trained=version, lineage=lineage)
            self._end(plan, child)
            lineage.append(child)
            history = list(dict.fromkeys([*history, version]))

    def _version(self, k: int) -> tuple[str, list[str]]:
        pairs = [
            Pair(Prompt.of(f"Question {i} of task {k}: what holds?"), f"The right answer {i}.", f"Another answer {i}.",
                 1.0, None, (), slices={"domain": DOMAINS[i % len(DOMAINS)], "source": f"task-{k}"}, split="test")
            for i in range(self.scale.items)
        ]  # fmt: skip
        made = write_version(pairs, self.places.versions.directory, rule={"bench": k}, watermark=0, head="")
        self.places.versions.add(f"task-{k}", made.digest)
        return made.digest, [pair.key for pair in pairs]

    def _measure(
        self,
        policy: str,
        versions: list[tuple[str, list[str]]],
        before: dict[str, np.ndarray] | None,
        *,
        trained: str = "",
        lineage: list[PolicyRecord] | None = None,
    ) -> dict[str, np.ndarray]:
        """Record what a policy did: margins drift a little from its parent's, those of what it trained on rise."""
        n, rows, now = self.scale.items, list[Item](), dict[str, np.ndarray]()
        for name, keys in versions:
            suite = f"retention/{name}"
            old = before[suite] if before else self._rng.normal(0, 2, n)
            now[suite] = old * 0.97 + self._rng.normal(0, 0.5, n) + (3 * (name == trained))
            rows += [Item(suite, key, "margin", float(v), key, {"domain": DOMAINS[i % len(DOMAINS)]}, {})
                     for i, (key, v) in enumerate(zip(keys, now[suite], strict=True))]  # fmt: skip
        for k in range(SUITES_ASIDE):
            suite = f"skill-{k}"
            old = before[suite] if before else self._rng.normal(1, 2, n)
            now[suite] = old + self._rng.normal(-0.01, 0.3, n)
            rows += [Item(suite, f"{i}", "correct", float(v > 0), f"{i}", {"domain": DOMAINS[i % len(DOMAINS)]}, {})
                     for i, v in enumerate(now[suite])]  # fmt: skip
        rows += self._samples(trained or versions[0][0], lineage or [])
        self.places.ledger.record(policy, CONDITION, rows)
        return now

    def _samples(self, version: str, lineage: list[PolicyRecord]) -> Iterator[Item]:
        suite = f"samples/{version}"
        for i in range(50):
            detail = {
                "prompt": f"user: question {i}",
                "answer": f"answer {self._rng.integers(1000)} to it, and more of it",
            }
            tokens = float(self._rng.integers(10, 60))
            yield Item(suite, str(i), "tokens", tokens, str(i), {}, detail)
            yield Item(suite, str(i), "refused", float(self._rng.random() < 0.05), str(i), {}, {})
            for other in {lineage[0].digest, lineage[-1].digest} if lineage else ():
                share = 0.01 * len(lineage) if other == lineage[0].digest else 0.03
                yield Item(suite, str(i), f"kl/{other}", share * tokens * float(self._rng.random()), str(i), {}, {})

    def _end(self, plan: Plan, child: PolicyRecord) -> None:
        """Journal and champion as a round leaves them; every seventh is rejected."""
        journal, round_digest = self.places.journal, plan_digest(plan)
        journal.begin(round_digest, plan.number, canonical_json(plan_as_json(plan)))
        verdict = judge(
            plan.gate,
            Measured(finite_weights=True, gain=None, retention_change={}, tax={}, kl_parent=None, kl_base=None),
        )
        state = "rejected" if plan.number % 7 == 0 else "promoted"
        journal.finish(round_digest, state, child=child.digest, verdict=verdict.as_json(), message="made up")


def _plan(lineage: list[PolicyRecord], version: str, history: list[str]) -> Plan:
    base, parent = (PolicyRef(p.digest, p.kind, "", p.base, "", p.tokenizer) for p in (lineage[0], lineage[-1]))
    return Plan(
        number=len(lineage), parent=parent, base=base, version=VersionRef(version, ""), anchors=(Anchor(parent, 1.0),),
        history=tuple(VersionRef(each, "") for each in history), update=False, objective=_SETTINGS.objective,
        training=_SETTINGS.training, numerics=_SETTINGS.numerics, evaluation=_SETTINGS.evaluation, gate=_SETTINGS.gate,
    )  # fmt: skip


def _policy(digest_: str, parent: str | None, name: str, more: dict[str, str]) -> PolicyRecord:
    return PolicyRecord(
        digest=digest_, kind="adapter" if parent else "full", parent=parent, base=digest("base"), tokenizer="none", path="",
        origin="round" if parent else "base", name=name, facts={}, **more,
    )  # fmt: skip


CONDITION = condition_of(plan_as_json(_plan([_policy(digest("base"), None, "base", {})], "", [])))
"""How all of it was measured."""
