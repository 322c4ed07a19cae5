"""The Python API: everything the command line and the page do is a method of `Workspace`.

ws = Workspace.init(Path("team"), base=Path("models/SmolLM2-135M-Instruct"))
ws.import_file(Path("votes.jsonl"))
ws.freeze(name="july")
outcome = ws.round(ws.plan(RoundSettings())).run()
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from preference_data.exporters import ExportReport, export
from preference_data.freeze import FreezeRule, Frozen, freeze
from preference_data.importers import ImportReport, import_file
from preference_data.records import now
from preference_data.store import Store
from preference_data.versions import Version, load_version
from workbench import assembly
from workbench.assembly import Where
from workbench.config import RoundSettings, Settings, read_settings
from workbench.drift.ledger import Ledger
from workbench.errors import ConfigError
from workbench.objects import Objects
from workbench.policies.registry import PolicyRecord, Registry
from workbench.rounds.journal import Journal
from workbench.rounds.plan import plan_digest
from workbench.rounds.run import Outcome, Services, run_round
from workbench.schema import open_ledger
from workbench.tasks import Anchor, Plan, Progress, VersionRef

CONFIG = "workbench.toml"
VERSIONS = "versions.jsonl"


class WorkspaceSettings(Settings):
    """`workbench.toml` of a workspace."""

    base_name: str
    """What people call policy 0."""
    store: str = ""
    """Database URL of the preferences; empty for a SQLite file in the workspace."""
    ledger: str = ""
    """Database URL of rounds, policies, measurements and scores; empty for a SQLite file in the workspace."""


class VersionEntry(NamedTuple):
    """One line of the list of versions: what people call it and when it was frozen."""

    name: str
    digest: str
    at: str


def _silent(_: Progress) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class PlannedRound:
    """A plan in a workspace, ready to run."""

    workspace: "Workspace"
    plan: Plan

    @property
    def digest(self) -> str:
        """Identity of the round."""
        return plan_digest(self.plan)

    def run(self, *, where: Where = "auto", watch: Callable[[Progress], None] = _silent) -> Outcome:
        """Run the round to its end, or go on with it; see `workbench.rounds.run.run_round` for what it raises."""
        ws = self.workspace
        services = Services(
            journal=ws.journal,
            objects=ws.objects,
            registry=ws.registry,
            ledger=ws.ledger,
            cache=ws.ledger_url,
            scratch=ws.root / "scratch",
            watch=watch,
        )
        with assembly.tools(where) as tools:
            return run_round(self.plan, tools, services)


class Workspace:
    """A folder with everything of one team: preferences, versions, policies, rounds, measurements."""

    def __init__(self, root: Path) -> None:
        """Open a workspace.

        Raises:
            ConfigError: the folder is none, or its settings are wrong.
        """
        self.root = root.absolute()
        if not (self.root / CONFIG).exists():
            raise ConfigError(f"{root}: no workspace here ({CONFIG} is missing); `workbench init {root}` makes one")
        self.settings = read_settings(self.root / CONFIG, WorkspaceSettings)

    @classmethod
    def init(cls, root: Path, *, base: Path, name: str = "base") -> "Workspace":
        """Make a workspace with policy 0. Doing it again with the same base changes nothing.

        Args:
            root: the folder; made if needed.
            base: a Hugging Face model folder with safetensors, tokenizer and chat template; it stays where it is.
            name: what people call the base.

        Raises:
            ModelError: the base is incomplete or unsafe.
        """
        root.mkdir(parents=True, exist_ok=True)
        if not (root / CONFIG).exists():
            (root / CONFIG).write_text(f"base_name = {json.dumps(name)}\n", encoding="utf-8")
        workspace = cls(root)
        workspace.registry.add_base(base.absolute(), workspace.settings.base_name)
        return workspace

    @cached_property
    def store(self) -> Store:
        """What people said."""
        return Store.open(self.settings.store or f"sqlite:///{self.root / 'preferences.db'}")

    @property
    def ledger_url(self) -> str:
        """Database of rounds, policies, measurements and cached scores."""
        return self.settings.ledger or f"sqlite:///{self.root / 'ledger.db'}"

    @cached_property
    def _engine(self) -> Any:
        return open_ledger(self.ledger_url)

    @cached_property
    def objects(self) -> Objects:
        """Content-addressed folders: policies, scores, measurements."""
        return Objects(self.root)

    @cached_property
    def registry(self) -> Registry:
        """Policies and the champion."""
        return Registry(self._engine, self.objects)

    @cached_property
    def journal(self) -> Journal:
        """Rounds and their steps."""
        return Journal(self._engine, self.objects)

    @cached_property
    def ledger(self) -> Ledger:
        """Measurements, item by item."""
        return Ledger(self._engine)

    def import_file(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002 - what everybody calls it
        mapping: Path | None = None,
        strict: bool = False,
        rejects: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Add a file of preferences; importing it twice adds nothing. See `preference_data.importers.import_file`."""
        return import_file(
            path,
            self.store,
            format=format,
            mapping=mapping,
            strict=strict,
            rejects=rejects or self.root / "rejects" / f"{path.name}.jsonl",
            progress=progress,
        )

    def export(self, name: str, path: Path) -> ExportReport:
        """Write all judgements as `name` (`trl`, `trl-unpaired`, `openai`), the rest into a sidecar file."""
        return export(name, self.store.entries(), path)

    def freeze(
        self,
        *,
        name: str = "",
        rule: FreezeRule | None = None,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Frozen:
        """Make a dataset version of what was judged so far, and list it under a name.

        Raises:
            VersionError: too few pairs in a split.
            ConfigError: the name is taken by another version.
        """
        entries = self.version_entries()
        parent = entries[-1].digest if entries else ""
        frozen = freeze(self.store, rule or FreezeRule(), self.root / "versions", parent=parent, progress=progress)
        entry = VersionEntry(name or f"v{len(entries) + 1}", frozen.version.digest, now().isoformat())
        taken = {e.name: e.digest for e in entries}
        if taken.get(entry.name, entry.digest) != entry.digest:
            raise ConfigError(
                f"version name '{entry.name}' is taken by {taken[entry.name][:12]}; choose another --name"
            )
        if entry.name not in taken:
            with (self.root / VERSIONS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry._asdict()) + "\n")
        return frozen

    def version_entries(self) -> list[VersionEntry]:
        """Names of versions, oldest first."""
        path = self.root / VERSIONS
        if not path.exists():
            return []
        return [VersionEntry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def version(self, name: str) -> Version:
        """A version by name, digest, prefix of a digest, or `latest`.

        Raises:
            ConfigError: nothing or several versions answer to it; lists what exists.
        """
        entries = self.version_entries()
        if name == "latest" and entries:
            return load_version(self.root / "versions" / entries[-1].digest)
        found = {e.digest for e in entries if e.name == name or (len(name) >= 4 and e.digest.startswith(name))}
        if len(found) != 1:
            known = ", ".join(f"{e.name} ({e.digest[:12]})" for e in entries) or "none; `workbench freeze` makes one"
            raise ConfigError(f"version '{name}': {len(found)} answer to it; versions: {known}")
        return load_version(self.root / "versions" / found.pop())

    def plan(self, settings: RoundSettings) -> Plan:
        """Resolve every name of the settings; nothing is loaded or written.

        Raises:
            ConfigError: the version does not exist, or two anchors are the same policy.
            PolicyError: the parent or an anchor does not exist.
        """
        registry, version = self.registry, self.version(settings.version)
        parent = registry.resolve(settings.parent)
        lineage = registry.lineage(parent.digest)
        anchors: list[Anchor] = []
        for a in settings.anchors:
            record = (
                parent if a.policy == "parent" else lineage[0] if a.policy == "base" else registry.resolve(a.policy)
            )
            anchors.append(Anchor(registry.ref(record), a.weight))
        versions = dict.fromkeys(p.version for p in lineage if p.version)
        merged: dict[str, Anchor] = {}
        for anchor in anchors:
            weight = anchor.weight + (merged[anchor.policy.digest].weight if anchor.policy.digest in merged else 0)
            merged[anchor.policy.digest] = anchor._replace(weight=weight)
        return Plan(
            number=len(lineage),
            parent=registry.ref(parent),
            base=registry.ref(lineage[0]),
            version=VersionRef(version.digest, str(version.path)),
            anchors=tuple(merged.values()),
            history=tuple(VersionRef(v, str(self.root / "versions" / v)) for v in versions),
            update=settings.update,
            objective=settings.objective,
            training=settings.training,
            numerics=settings.numerics,
            evaluation=settings.evaluation,
            gate=settings.gate,
        )

    def round(self, plan: Plan) -> PlannedRound:
        """A round ready to run."""
        return PlannedRound(self, plan)

    def adopt(self, path: Path, *, parent: str, name: str, version: str | None = None) -> PolicyRecord:
        """Register a checkpoint trained elsewhere, with its parent and, where known, its data."""
        digest = self.version(version).digest if version else None
        return self.registry.adopt(path, parent=parent, version=digest, name=name)

    def promote(self, policy: str, *, reason: str, by: str) -> PolicyRecord:
        """Make a policy champion by hand."""
        record = self.registry.resolve(policy)
        champion = self.registry.resolve("champion").digest
        return self.registry.promote(record.digest, reason=reason, by=by, expected=champion)

    def rollback(self, *, reason: str, by: str, to: str | None = None) -> PolicyRecord:
        """Make an earlier champion champion again."""
        return self.registry.rollback(reason=reason, by=by, to=to)
