"""The Python API: everything the command line and the page do is a method of `Workspace`.

ws = Workspace.init(Path("team"), base=Path("models/SmolLM2-135M-Instruct"))
ws.import_file(Path("votes.jsonl"))
ws.freeze(name="july")
outcome = ws.round(ws.plan(RoundSettings())).run()
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from preference_data import asking
from preference_data.asking import Asked, ask
from preference_data.exporters import ExportReport, export
from preference_data.freeze import FreezeReport, FreezeRule, Frozen, freeze, preview
from preference_data.importers import ImportReport, Nowhere, import_file
from preference_data.projects import Mode, ProjectSettings
from preference_data.requests import Requests
from preference_data.simulated import Simulated, judge_open
from preference_data.version_list import VersionEntry
from preference_data.versions import Version
from workbench import assembly
from workbench.ai_judge import require_judge
from workbench.alerts import require_trackers, telling
from workbench.answering import Generated, Request, answer
from workbench.assembly import Where
from workbench.config import AnchorSettings, GenerateSettings, Rounded, RoundSettings
from workbench.drift.uncertainty import Estimate
from workbench.errors import ConfigError
from workbench.objects import disk_faults
from workbench.places import CONFIG, Places, Watch, silent
from workbench.policies.checkpoints import read_base
from workbench.policies.registry import PolicyRecord
from workbench.rebasing import check_movable, moved_settings
from workbench.rejecting import next_champion
from workbench.reward_list import RewardModels
from workbench.reward_models import pinned
from workbench.rounds.alone import Alone, measurements
from workbench.rounds.estimate import Estimated, estimate, shape_of, suite_sizes
from workbench.rounds.journal import FINAL
from workbench.rounds.measure import require_budget
from workbench.rounds.plan import measuring_condition, plan_digest
from workbench.rounds.planning import require_something_to_learn, resolve_plan, version_ref
from workbench.rounds.run import Outcome, run_round
from workbench.rounds.sweeping import Freed, sweep
from workbench.scoring.cache import ScoreCache
from workbench.tasks import Plan
from workbench.views.asked import thresholds
from workbench.views.kept import Numbers
from workbench.worth import Strategy, worth_by

DAY_S = 86_400.0


SELF = (AnchorSettings(policy="parent", weight=1.0),)


@dataclass(frozen=True, slots=True)
class PlannedRound:
    """A plan in a workspace, ready to run."""

    workspace: "Workspace"
    plan: Plan

    @property
    def digest(self) -> str:
        """Identity of the round."""
        return plan_digest(self.plan)

    def estimate(self) -> Estimated:
        """What it would cost and could show; loads the tokenizer and no weights."""
        base = self.workspace.registry.get(self.plan.base.digest)
        return estimate(
            self.plan, assembly.workload(self.plan), shape_of(base), suite_sizes(self.plan.evaluation.suites)
        )

    def run(self, *, where: Where = "auto", watch: Watch = silent, promote: bool = True) -> Outcome:
        """Run the round to its end, or go on with it; see `workbench.rounds.run.run_round` for what it raises."""
        ws = self.workspace
        require_trackers(ws.settings.report_to)
        if self.plan.online.on and self.digest not in {r.digest for r in ws.journal.rounds() if r.state in FINAL}:
            require_judge(self.plan.online.guard)
        with ws.held(f"running round {self.plan.number}"), telling(ws, self.digest), assembly.tools(where) as tools:
            outcome = run_round(self.plan, tools, ws.services(watch), promote=promote)
            ws.keep_numbers(outcome.child.digest, measuring_condition(self.plan))
        return outcome


class Workspace(Places):
    """A folder with everything of one team: preferences, versions, policies, rounds, measurements."""

    @classmethod
    def init(cls, root: Path, *, base: Path, name: str = "base", measure: bool = False) -> "Workspace":
        """Make a workspace with policy 0. Doing it again with the same base changes nothing.

        Args:
            root: the folder; made if needed.
            base: a Hugging Face model folder with safetensors, tokenizer and chat template; it stays where it is.
            name: what people call the base.
            measure: which precision and how many threads are fastest here, and write them down as the workspace's default.

        Raises:
            ModelError: the base is incomplete or unsafe.
        """
        read_base(base)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / CONFIG).exists():
            says = f"base_name = {json.dumps(name)}\n"
            if measure:
                fastest = assembly.fastest_here()
                says += f'\n[numerics]\ndtype = "{fastest.dtype}"\nthreads = {fastest.threads}\n'
            (root / CONFIG).write_text(says, encoding="utf-8")
        workspace = cls(root)
        workspace.registry.add_base(base.absolute(), workspace.settings.base_name)
        return workspace

    def import_file(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002 - what everybody calls it
        mapping: Path | str | None = None,
        strict: bool = False,
        rejects: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Add a file of preferences; importing it twice adds nothing. See `preference_data.importers.import_file`."""
        place = rejects or self.rejects_of(path)
        return import_file(
            path, self.store, format=format, mapping=mapping, strict=strict, rejects=place, progress=progress
        )

    def preview_import(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002
        mapping: Path | str | None = None,
        rejects: Path,
    ) -> ImportReport:
        """What an import would read and refuse; nothing is stored, and what is known already is not told apart."""
        return import_file(path, Nowhere(), format=format, mapping=mapping, rejects=rejects)

    def preview_freeze(self, rule: FreezeRule | None = None) -> FreezeReport:
        """What a freeze would count now; nothing is written."""
        return preview(self.store, rule or FreezeRule())

    def export(self, name: str, path: Path) -> ExportReport:
        """Write all judgements in a format of `preference_data.exporters.EXPORTERS`, the rest into a sidecar file."""
        return export(name, self.store.entries(superseded=True), path)

    def freeze(
        self,
        *,
        name: str = "",
        rule: FreezeRule | None = None,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Frozen:
        """Make a dataset version of what was judged so far, and list it under a name.

        Raises:
            VersionError: too few pairs in a split, or the name is taken by another version.
        """
        entries = self.versions.entries()
        parent = entries[-1].digest if entries else ""
        with self.held("freezing a version"):
            frozen = freeze(self.store, rule or FreezeRule(), self.versions.directory, parent=parent, progress=progress)
            self.versions.add(name, frozen.version.digest)
        return frozen

    def version_entries(self) -> list[VersionEntry]:
        """Names of versions, oldest first."""
        return self.versions.entries()

    def version(self, name: str) -> Version:
        """A version by name, digest, prefix of a digest, or `latest`.

        Raises:
            VersionError: nothing or several versions answer to it; lists what exists.
        """
        return self.versions.find(name)

    def ask(
        self,
        project: str,
        mode: Mode = "pairwise",
        *,
        guideline: str = "",
        settings: ProjectSettings | None = None,
        by: str,
        sources: tuple[str, ...] = (),
        needs: tuple[str, ...] = (),
        strategy: Strategy = "random",
        count: int = 0,
        policy: str = "champion",
        version: str = "",
        within: str = "",
        seed: int = 0,
        where: Where = "auto",
        watch: Watch = silent,
    ) -> Asked:
        """Put comparisons on the annotation page; see `preference_data.asking.ask` and `workbench.worth`.

        Raises:
            ConfigError: the policy's lineage is too short for the strategy.
        """
        settings = settings or ProjectSettings()
        worth = worth_by(self, strategy, where, watch, policy=policy, version=version, within=within)
        return ask(
            self.store,
            project,
            mode,
            guideline=guideline,
            settings=settings,
            by=by,
            sources=sources,
            needs=needs,
            strategy=asking.Strategy(strategy, worth),
            count=count,
            seed=seed,
        )

    def simulate(self, guideline: str, *, annotator: str = "", error_rate: float = 0.0, seed: int = 0) -> Simulated:
        """Judge what nobody has judged yet as a simulated annotator; see `preference_data.simulated.judge_open`."""
        handle = annotator or f"simulated:{guideline}"
        return judge_open(self.store, guideline, annotator=handle, error_rate=error_rate, seed=seed)

    def plan(self, settings: RoundSettings) -> Plan:
        """Resolve every name of the settings; nothing is loaded or written.

        A gate the settings do not speak of has the thresholds that leads set last, numerics they do not are the workspace's.

        Raises:
            VersionError: the version, or the one it replaces, does not exist.
            PolicyError: the parent or an anchor does not exist.
        """
        if "gate" not in settings.model_fields_set:
            settings = settings.model_copy(update={"gate": thresholds(Requests(self.store.engine))[0].gate})
        if isinstance(settings.update, str):
            settings = settings.model_copy(update={"update": self.version(settings.update).digest})
        settings, models = pinned(self, self.on_this_machine(settings))
        return resolve_plan(settings, self.registry, self.version(settings.version), models)

    def round(self, plan: Plan) -> PlannedRound:
        """A round ready to run; refused where its version has nothing to learn from, or the lineage's KL budget is used up."""
        require_something_to_learn(plan)
        require_budget(plan, self.ledger)
        return PlannedRound(self, plan)

    def rebase(
        self, base: Path, *, policy: str = "champion", name: str = "", where: Where = "auto", watch: Watch = silent
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Run the rounds that led to a policy once more on another base; what is done already is not done again.

        The champion stays; promote the new lineage's last policy by hand.

        Args:
            base: folder of the new base.
            policy: newest of the lineage that is moved, as `registry.resolve` takes it.
            name: what people call the new base; its folder's name where empty.
            where: in this process or on Ray.
            watch: told every progress.

        Returns:
            Digests of the old and the new lineage, base first.

        Raises:
            ConfigError: the lineage cannot be moved; see `workbench.rebasing`.
        """
        lineage = self.registry.lineage(self.registry.resolve(policy).digest)
        new = self.registry.add_base(base.absolute(), name or base.name)
        plans = {r.digest: json.loads(r.plan) for r in self.journal.rounds()}
        check_movable(lineage, new, plans)
        moved = {lineage[0].digest: new.digest}
        for old in lineage[1:]:
            again = self.round(self.plan(moved_settings(plans[str(old.round)], moved)))
            done = {r.digest: r.child for r in self.journal.rounds() if r.state in FINAL}.get(again.digest)
            moved[old.digest] = done or again.run(where=where, watch=watch, promote=False).child.digest
        return tuple(moved), tuple(moved.values())

    def evaluate(
        self,
        policy: str,
        settings: RoundSettings,
        *,
        versions: Sequence[str] = (),
        where: Where = "auto",
        watch: Watch = silent,
    ) -> dict[str, dict[str, Estimate]]:
        """Measure a policy outside a round, as the settings say; what is measured already is only read.

        Args:
            policy: as `registry.resolve` takes it.
            settings: precision, suites and sampling; parent, version and anchors in it are not used.
            versions: names of versions; all there are where none is given.
            where: in this process or on Ray.
            watch: told every progress.

        Returns:
            Numbers with their intervals, by suite and metric.
        """
        record = self.registry.resolve(policy)
        wanted = [self.version(v).digest for v in versions] or [e.digest for e in self.versions.entries()]
        alone = settings.model_copy(update={"parent": record.digest, "version": "latest", "anchors": SELF})
        plan = self.plan(alone)
        refs = [version_ref(digest, self.versions.directory) for digest in dict.fromkeys(wanted)]
        against = {p.digest: self.registry.ref(p) for p in self.registry.lineage(record.digest)[:-1]}
        with assembly.tools(where) as tools:
            Alone(plan, tools, self.services(watch)).measure(refs, against)
        self.keep_numbers(record.digest, measuring_condition(plan))
        return measurements(self.ledger, record.digest, measuring_condition(plan))

    def keep_numbers(self, policy: str, condition: str) -> None:
        """Compute what people will look at of a policy and those it came from, where it is not computed yet."""
        Numbers(self.engine, condition).keep([record.digest for record in self.registry.lineage(policy)])

    def generate(
        self,
        prompts: Path,
        output: Path | None = None,
        *,
        policy: str = "champion",
        settings: GenerateSettings | None = None,
        add: bool = True,
        where: Where = "auto",
        watch: Watch = silent,
    ) -> Generated:
        """Let a policy answer a file of prompts; see `workbench.answering.answer`."""
        record = self.registry.resolve(policy)
        settings = self.on_this_machine(settings or GenerateSettings())
        request = Request(self.registry.ref(record), prompts, output, settings)
        with assembly.tools(where) as tools:
            return answer(request, tools, self.services(watch), store=self.store if add else None)

    def adopt(self, path: Path, *, parent: str, name: str, version: str | None = None) -> PolicyRecord:
        """Register a checkpoint trained elsewhere, with its parent and, where known, its data."""
        digest = self.version(version).digest if version else None
        return self.registry.adopt(path, parent=parent, version=digest, name=name)

    def export_policy(
        self, policy: str, folder: Path, *, merged: bool = False, rounded: Rounded | None = None
    ) -> PolicyRecord:
        """Write a policy as a Hugging Face folder that needs no workbench.

        Args:
            policy: as `registry.resolve` takes it.
            folder: new or empty.
            merged: fold an adapter into its base.
            rounded: what a full model's matrices are rounded to; None for not at all.

        Raises:
            ConfigError: the folder holds something already.
        """
        record = self.registry.resolve(policy)
        self.registry.verify(record.digest)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: exists and is not an empty folder; give another place")
        folder.mkdir(parents=True, exist_ok=True)
        part = folder.resolve().with_name(f"{folder.resolve().name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        with disk_faults(part):
            assembly.export_policy(self.registry.ref(record), part, merged=merged, rounded=rounded)
        part.replace(folder)
        return record

    def promote(self, policy: str, *, reason: str, by: str) -> PolicyRecord:
        """Make a policy champion by hand."""
        record = self.registry.resolve(policy)
        champion = self.registry.resolve("champion").digest
        return self.registry.promote(record.digest, reason=reason, by=by, expected=champion)

    def rollback(self, *, reason: str, by: str, to: str | None = None) -> PolicyRecord:
        """Make an earlier champion champion again: the last one that nobody rejected, or the policy named."""
        return self.registry.rollback(reason=reason, by=by, to=to or next_champion(self))

    def gc(self, *, scores: bool = False, older_than_s: float = DAY_S) -> Freed:
        """Give back disk space that nothing refers to; see `workbench.rounds.sweeping.sweep`.

        Args:
            scores: forget all cached scores too; they are computed again when a round needs them.
            older_than_s: younger folders stay.

        Raises:
            JournalError: scores are to be forgotten while a round runs, which may be reading them.
        """
        scratch = self.root / "scratch"
        also = [model.digest for model in RewardModels(self).entries()]
        with self.held("forgetting scores") if scores else nullcontext():
            freed = sweep(
                self.journal, self.objects, self.registry, scratch, older_than_s=older_than_s, scores=scores, also=also
            )
            if scores:
                ScoreCache(self.engine).clear()
        return freed
