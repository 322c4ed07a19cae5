"""A workspace whose policies and measurements are made up, so that every number of it can be worked out by hand."""

from dataclasses import replace

import pytest

from preference_data.records import canonical_json
from tests.small_round import write_adapter, write_base
from workbench.config import RoundSettings
from workbench.rounds.gate import judge
from workbench.rounds.measure import measured
from workbench.rounds.plan import measuring_condition, plan_as_json, plan_digest
from workbench.tasks import Anchor, Item, Plan, VersionRef
from workbench.views import NamedVersion, drift_report
from workbench.workspace import Workspace

PLAIN, POLITE, LATER = ("a" * 64, "b" * 64, "c" * 64)
VERSIONS = (NamedVersion("plain", PLAIN), NamedVersion("polite", POLITE), NamedVersion("later", LATER))
PAIRS, QUESTIONS, CHUNKS, PROMPTS = 20, 40, 10, 6


def items(suite, metric, values, *, slices=None, details=None):
    return [
        Item(suite, f"{i:03d}", metric, float(v), f"{i:03d}", (slices or [{}] * len(values))[i],
             (details or [{}] * len(values))[i])
        for i, v in enumerate(values)
    ]  # fmt: skip


def right(count, of):
    return [1.0] * count + [0.0] * (of - count)


def retention(version, count, *, answers=None):
    margins = [2 * one - 1 for one in right(count, PAIRS)]
    slices = [{"answer": a} for a in answers] if answers else None
    return [
        *items(f"retention/{version}", "margin", margins, slices=slices),
        *items(f"retention/{version}", "margin_per_token", [m / 4 for m in margins], slices=slices),
        *items(f"retention/{version}", "logp_chosen", [m - 5 for m in margins], slices=slices),
    ]


def samples(version, *, tokens, texts, kl=()):
    suite = f"samples/{version}"
    details = [{"prompt": f"prompt {i} of {version[0]}", "answer": text} for i, text in enumerate(texts)]
    return [
        *items(suite, "tokens", tokens, details=details),
        *items(suite, "finished", [1] * PROMPTS),
        *items(suite, "refused", [0] * PROMPTS),
        *items(suite, "compliance/nominal", [0.25 * len(text.split()) for text in texts]),
        *(row for other, share in kl for row in items(suite, f"kl/{other}", [share * t for t in tokens])),
        *(row for other, share in kl for row in items(suite, f"kl_back/{other}", [2 * share * t for t in tokens])),
    ]


def capability(choice, bits):
    return [
        *items("choice", "correct", right(choice, QUESTIONS)),
        *items("text/f00df00df00d", "bits", [bits] * CHUNKS),
        *items("text/f00df00df00d", "bytes", [400] * CHUNKS),
        *items("refusal", "refused", right(2, 10), slices=[{"label": "safe"}] * 5 + [{"label": "unsafe"}] * 5),
    ]


class World:
    """A workspace whose policies and measurements are made up; nothing was trained."""

    def __init__(self, root):
        self.ws = Workspace.init(root / "ws", base=write_base(root / "base"), name="tiny")
        self.base = self.ws.registry.resolve("base")
        for version in VERSIONS:
            self.ws.versions.add(*version)

    def report(self, policy="champion", **options):
        return drift_report(self.ws.registry, self.ws.ledger, VERSIONS, policy, **options)

    def plan(self, parent, version, **settings):
        chosen = RoundSettings(**settings)
        registry = self.ws.registry
        refs = [registry.ref(p) for p in registry.lineage(parent.digest)]
        anchors = tuple(Anchor(ref, 1 / len({refs[0], refs[-1]})) for ref in dict.fromkeys((refs[0], refs[-1])))
        history = tuple(VersionRef(p.version, "") for p in registry.lineage(parent.digest) if p.version)
        return Plan(
            number=len(refs), parent=refs[-1], base=refs[0], version=VersionRef(version, ""), anchors=anchors,
            history=history, update=chosen.update, objective=chosen.objective, training=chosen.training,
            numerics=chosen.numerics, evaluation=chosen.evaluation, gate=chosen.gate,
        )  # fmt: skip

    def child(self, plan, fill):
        staged = self.ws.objects.stage()
        write_adapter(staged, fill=fill, base_model_name_or_path="")
        facts = {"anchors": {a.policy.digest: a.weight for a in plan.anchors}, "update": plan.update}
        facts |= {"online": plan.online.objective} if plan.online.on else {}
        return self.ws.registry.commit_child(
            self.ws.objects.publish(staged), parent=plan.parent.digest, round_digest=plan_digest(plan),
            version=plan.version.digest, config=None, name=f"round-{plan.number}", facts=facts,
        )  # fmt: skip

    def finish(self, plan, child):
        """Journal and champion as a round leaves them."""
        self.ws.journal.begin(plan_digest(plan), plan.number, canonical_json(plan_as_json(plan)))
        verdict = judge(plan.gate, measured(plan, child.digest, self.ws.ledger))
        if verdict.passed:
            self.ws.registry.promote(child.digest, reason="gate passed", by="test", expected=plan.parent.digest)
        state = "promoted" if verdict.passed else "rejected"
        self.ws.journal.finish(plan_digest(plan), state, child=child.digest, verdict=verdict.as_json())
        return verdict

    def record(self, policy, *rows, condition=None):
        for part in rows:
            self.ws.ledger.record(policy.digest, condition or self.condition, part)


def two_rounds_in(world, **second_changed):
    """Round 1 learns `plain`, round 2 `polite`; the second forgets a little of the first."""
    gate = {"max_tax": 0.5}
    first_plan = world.plan(world.base, PLAIN, gate=gate)
    world.condition = measuring_condition(first_plan)
    base, first = world.base, world.child(first_plan, 1.0)
    words = ["one two three four"] * 4 + ["five six seven eight"] * 2
    world.record(base, retention(PLAIN, 10), retention(POLITE, 8), capability(20, 800))
    world.record(base, samples(PLAIN, tokens=[10] * PROMPTS, texts=words))
    world.record(base, samples(POLITE, tokens=[10] * PROMPTS, texts=words))
    world.record(first, retention(PLAIN, 16), retention(POLITE, 6), capability(18, 820))
    after = ["one two"] * 5 + ["five six seven eight"]
    world.record(first, samples(PLAIN, tokens=[7, 8, 9, 7, 8, 9], texts=after, kl=[(base.digest, 0.1)]))
    world.first_verdict = world.finish(first_plan, first)
    second_plan = replace(world.plan(first, POLITE, gate=gate), **second_changed)
    second = world.child(second_plan, 2.0)
    world.record(second, retention(PLAIN, 14), retention(POLITE, 15), capability(19, 810))
    kl = [(base.digest, 0.3), (first.digest, 0.2)]
    world.record(second, samples(PLAIN, tokens=[6] * PROMPTS, texts=["a b c"] * PROMPTS, kl=kl))
    world.record(second, samples(POLITE, tokens=[5] * PROMPTS, texts=["a b"] * PROMPTS, kl=kl))
    world.second_verdict = world.finish(second_plan, second)
    world.first, world.second, world.second_plan = first, second, second_plan
    return world


def one_round(world, before=(), after=(), **changed):
    """A round on `plain` that gains six pairs, whose base and child measured so much beside it."""
    plan = replace(world.plan(world.base, PLAIN), **changed)
    world.condition = measuring_condition(plan)
    child = world.child(plan, 1.0)
    world.record(world.base, [*retention(PLAIN, 10), *before])
    world.record(child, [*retention(PLAIN, 16), *after])
    world.finish(plan, child)
    return child


@pytest.fixture
def world(tmp_path):
    """Two rounds. Test modules take it, and what serves it, by name: `world, web = drift_kit.world, drift_kit.web`."""
    return two_rounds_in(World(tmp_path))


@pytest.fixture
def web(world):
    """A client of the page over them."""
    from tests.page_kit import client, drift_served  # loads the page, which others who use this kit do without

    with drift_served(world.ws) as url, client(url) as found:
        yield found
