"""A round: plan, mix in what is replayed, score anchors, optimise, evaluate, gate, promote.

`run_round` is the architecture. It cannot tell Ray from this process or from a test's fake: the heavy verbs are
handed in. Everything it does is a step of the journal, so that killing it anywhere and running it again ends with
the same child.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from preference_data.errors import PreferenceDataError
from preference_data.records import Pair, Split, canonical_json, digest
from preference_data.versions import write_version
from workbench.completions import SlicedPrompt, write_prompts
from workbench.drift.ledger import Ledger
from workbench.errors import StopRequested, WorkbenchError
from workbench.items import read_items
from workbench.models.score_table import read_table
from workbench.objects import Objects
from workbench.policies.registry import PolicyRecord, Registry
from workbench.rounds.gate import Verdict, judge
from workbench.rounds.holding import Held, earlier_versions, held, training_pairs
from workbench.rounds.journal import Journal, State
from workbench.rounds.measure import measured
from workbench.rounds.plan import (
    check_lineage,
    distinct_policies,
    measuring_condition,
    plan_as_json,
    plan_digest,
    replaced,
)
from workbench.tasks import (
    EvaluateJob,
    ExplainJob,
    GenerateJob,
    MergeJob,
    Plan,
    PolicyRef,
    Progress,
    Report,
    ScoreJob,
    Tools,
    TrainJob,
    VersionRef,
    suite_label,
)


@dataclass(frozen=True, slots=True)
class Services:
    """Where a round keeps what it does.

    Attributes:
        cache: database URL of the score cache.
        scratch: folder for checkpoints.
        report_to: trackers told of training.
        watch: called with every progress besides the journal; for bars on a screen.
    """

    journal: Journal
    objects: Objects
    registry: Registry
    ledger: Ledger
    cache: str
    scratch: Path
    watch: Callable[[Progress], None]
    report_to: tuple[str, ...] = ()


ANSWERS, LONGEST_ANSWER = "answers", 256
"""Where the parent's answers to replayed prompts lie in their step, and how many tokens they may have; longer ones are not
used, for they would be trained on as if they ended there."""


class Outcome(NamedTuple):
    """How a round ended."""

    round: str
    child: PolicyRecord
    verdict: Verdict
    state: State


def run_round(plan: Plan, tools: Tools, services: Services, *, promote: bool = True) -> Outcome:
    """Run a round to its end, or go on with it where it was left.

    Args:
        plan: the round.
        tools: the heavy verbs.
        services: where it keeps what it does.
        promote: make the child champion if the gate lets it pass.

    Raises:
        WiringError: the policies do not fit together, or the round would not train what its plan says.
        NumericsError: a loss, gradient or weight is not finite; the champion stays.
        StopRequested: somebody asked it to stop; running it again goes on.
        WorkbenchError: anything else; the journal says where it stood.
    """
    steps = _Steps(plan, tools, services)
    steps.begin()
    try:
        child = steps.optimise(steps.train_job())
        earlier = {n.policy.digest: n.policy for n in distinct_policies(plan)}
        for policy in earlier.values():
            steps.evaluate(policy, against={})
        steps.evaluate(services.registry.ref(child), against=earlier)
        judged = steps.judged(child)
        if judged.digest != child.digest:
            steps.evaluate(judged, against=earlier)
        verdict = judge(plan.gate, measured(plan, judged.digest, services.ledger))
        return steps.end(child, verdict, promote=promote)
    except StopRequested as stop:
        services.journal.finish(steps.round, "stopped", message=str(stop))
        raise
    except (WorkbenchError, PreferenceDataError) as error:
        services.journal.finish(steps.round, "failed", message=str(error))
        raise
    except Exception as error:
        services.journal.finish(steps.round, "failed", message=f"{type(error).__name__}: {error}")
        raise


def explain_round(plan: Plan, fell: tuple[VersionRef, str], tools: Tools, services: Services) -> Path:
    """Which training pairs of a round that has a child moved it away from what a version taught.

    Args:
        plan: the round.
        fell: a version, and the slice of it to look at; all of it where empty.
        tools: the heavy verbs.
        services: where the round kept what it did.

    Returns:
        Folder with what was found.
    """
    return _Steps(plan, tools, services).explain(*fell)


class _Steps:
    """The steps of one round, each done once."""

    def __init__(self, plan: Plan, tools: Tools, services: Services) -> None:
        self._plan, self._tools, self._services = plan, tools, services
        self.round = plan_digest(plan)

    def begin(self) -> None:
        """Check what can be checked cheaply, then record the intent."""
        check_lineage(self._plan)
        self._services.journal.begin(self.round, self._plan.number, canonical_json(plan_as_json(self._plan)))
        self._services.journal.clear_stop(self.round)
        self._services.registry.verify(*(named.policy.digest for named in distinct_policies(self._plan)))

    def score(self, policy: PolicyRef, version: VersionRef, split: Split) -> str:
        """Folder with the scores of one split under one policy."""

        def work(output: Path, report: Report) -> None:
            self._tools.score(
                ScoreJob(
                    policy=policy,
                    version=version,
                    splits=(split,),
                    numerics=self._plan.numerics,
                    max_length=self._plan.training.max_length,
                    batch_size=self._plan.evaluation.batch_size,
                    cache=self._services.cache,
                    output=str(output),
                ),
                report,
            )

        return self._step(f"score {split} {version.digest[:12]} {policy.digest[:12]}", work)

    def anchors(self) -> Held:
        """What holds the round; rules that look at accuracy have the lineage's policies scored on select pairs first."""
        return held(self._plan, lambda policy, version: read_table(Path(self.score(policy, version, "select"))))

    def write(self, name: str, pairs: Callable[[], Iterable[Pair]]) -> VersionRef:
        """A step that writes pairs as a version of its own."""

        def work(output: Path, report: Report) -> None:
            write_version(pairs(), output, rule={"round": self.round}, watermark=0, head="")

        (folder,) = (each for each in Path(self._step(name, work)).iterdir() if each.is_dir())
        return VersionRef(folder.name, str(folder))

    def answer(self, prompts: Sequence[SlicedPrompt]) -> Path:
        """A step in which the parent answers prompts, twice each."""
        plan = self._plan

        def work(output: Path, report: Report) -> None:
            write_prompts(output / "prompts.jsonl", prompts)
            (output / ANSWERS).mkdir()
            self._tools.generate(
                GenerateJob(
                    policy=plan.parent,
                    prompts=str(output / "prompts.jsonl"),
                    count=2,
                    max_new_tokens=LONGEST_ANSWER,
                    temperature=plan.evaluation.temperature,
                    top_p=1.0,
                    batch_size=plan.evaluation.batch_size,
                    seed=plan.replay.seed,
                    numerics=plan.numerics,
                    output=str(output / ANSWERS),
                ),
                report,
            )

        return Path(self._step("answer", work)) / ANSWERS

    def train_job(self) -> TrainJob:
        """What the round trains, everything it reads being there; where to is left open."""
        plan, held = self._plan, self.anchors()
        training = training_pairs(plan, self)
        frozen = [plan.start, *(a.policy for a in held.anchors)]
        return TrainJob(
            parent=plan.start,
            anchors=held.anchors,
            version=training,
            tables={p.digest: self.score(p, training, "train") for p in frozen},
            objective=plan.objective,
            training=plan.training,
            numerics=plan.numerics,
            scratch=str(self._services.scratch / self.round),
            output="",
            plan=self.round,
            by_slice=held.by_slice,
            lineage=tuple(past.policy for past in plan.lineage),
            history=tuple(earlier_versions(plan).values()),
            versions=tuple(v for v in self._versions() if v.digest not in replaced(plan)),
            moving=plan.moving,
            penalties=plan.penalties,
            merging=plan.merging,
            after=plan.after,
            online=plan.online,
            reward_models=plan.reward_models,
            report_to=self._services.report_to,
        )

    def optimise(self, job: TrainJob) -> PolicyRecord:
        """Train and register the child."""
        plan = self._plan
        Path(job.scratch).mkdir(parents=True, exist_ok=True)

        def work(output: Path, report: Report) -> None:
            self._tools.optimise(replace(job, output=str(output)), report)

        folder = self._step("optimise", work)
        return self._services.registry.commit_child(
            Path(folder).name,
            parent=plan.parent.digest,
            round_digest=self.round,
            version=plan.version.digest,
            config=digest(plan_as_json(plan)),
            name=f"round-{plan.number}-{self.round[:8]}",
            facts={
                "anchors": {a.policy.digest: a.weight for a in job.anchors},
                "update": plan.update,
                **({"online": plan.online.objective} if plan.online.on else {}),
            },
        )

    def explain(self, version: VersionRef, within: str) -> Path:
        """Which training pairs moved the child away from a version."""
        record = self._services.journal.status(self.round).round
        child = self._services.registry.ref(self._services.registry.get(str(record.child)))
        trained = self.train_job()

        def work(output: Path, report: Report) -> None:
            self._tools.explain(ExplainJob(trained, child, version, within, str(output)), report)

        return Path(self._step(explaining(version.digest, within), work))

    def judged(self, child: PolicyRecord) -> PolicyRef:
        """What the gate judges: the child, or its weights folded into the base and rounded as they ship."""
        own, wanted = self._services.registry.ref(child), self._plan.judged
        if wanted == "child":
            return own

        def work(output: Path, report: Report) -> None:
            rounded = None if wanted == "merged" else wanted
            self._tools.merge(MergeJob(own, str(output), self._plan.numerics, rounded), report)

        folder = self._step("merge", work)
        return own._replace(digest=Path(folder).name, kind="full", path=folder)

    def evaluate(self, policy: PolicyRef, against: dict[str, PolicyRef]) -> None:
        """Measure what is not measured yet of one policy, and add it to the ledger."""
        condition = measuring_condition(self._plan)
        known = {m.suite for m in self._services.ledger.suites(policy.digest) if m.numerics == condition}
        versions = tuple(v for v in self._versions() if not knows(known, v))
        suites = tuple(s for s in self._plan.evaluation.suites if not has(known, s))
        if not versions and not suites:
            return
        tables = {v.digest: self.score(policy, v, "test") for v in versions}

        def work(output: Path, report: Report) -> None:
            self._tools.evaluate(
                EvaluateJob(
                    policy=policy,
                    versions=versions,
                    tables=tables,
                    suites=suites,
                    against=against,
                    settings=self._plan.evaluation,
                    numerics=self._plan.numerics,
                    max_length=self._plan.training.max_length,
                    output=str(output),
                ),
                report,
            )

        folder = self._step(f"evaluate {policy.digest[:12]}", work)
        self._services.ledger.record(policy.digest, condition, read_items(Path(folder)))

    def end(self, child: PolicyRecord, verdict: Verdict, *, promote: bool) -> Outcome:
        """Promote if the gate passed and the champion is still the one the round knew; say how it ended."""
        services, plan = self._services, self._plan
        state: State = "promoted" if verdict.passed else "rejected"
        message = "gate passed" if verdict.passed else "gate failed"
        champion = services.registry.resolve("champion").digest
        if verdict.passed and not promote:
            state, message = "kept", "gate passed; promote it by hand"
        elif verdict.passed and champion not in {plan.parent.digest, child.digest}:
            state, message = "kept", "gate passed, but the champion has changed since; promote it by hand"
        elif verdict.passed and champion != child.digest:
            services.registry.promote(
                child.digest,
                reason="gate passed",
                by=f"round-{plan.number}",
                round_digest=self.round,
                expected=champion,
            )
        services.journal.finish(self.round, state, child=child.digest, verdict=verdict.as_json(), message=message)
        return Outcome(self.round, child, verdict, state)

    def _versions(self) -> Iterable[VersionRef]:
        return {v.digest: v for v in (*self._plan.history, self._plan.version)}.values()

    def _step(self, name: str, work: Callable[[Path, Report], None]) -> str:
        """Folder of the step's published result."""

        def watched(output: Path, report: Report) -> None:
            def tell(progress: Progress) -> bool:
                self._services.watch(progress)
                return report(progress)

            work(output, tell)

        inputs = digest([self.round, name])
        return str(self._services.objects.path(self._services.journal.step(self.round, name, inputs, watched)))


def explaining(version: str, within: str) -> str:
    """What the step is called that explains why a version fell."""
    return f"explain {version[:12]} {within}".strip()


def knows(known: set[str], version: VersionRef) -> bool:
    """Whether the test pairs and single answers of a version are among what was measured."""
    return bool(known & {f"retention/{version.digest}", f"singles/{version.digest}"})


def has(known: set[str], suite: str) -> bool:
    """Whether a suite is among those measured; some carry a hash of what they ask behind their name."""
    label = suite_label(suite)
    return any(k == label or k.startswith(f"{label}/") for k in known)
