"""Which training pairs made a policy forget: planted contradictions are found, and the page lets somebody act on them."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from preference_data.freeze import FreezeRule
from preference_data.requests import Requests
from preference_data.versions import write_version
from tests.page_kit import client
from tests.rounds_kit import entries, settings
from tests.test_drift_page import drift_served
from tests.tiny_model import build_tiny_model
from workbench.acting import act_on_requests
from workbench.cli import app
from workbench.errors import ConfigError
from workbench.explaining import explain
from workbench.views.explained import explained
from workbench.workspace import Workspace

PLANTED = 16
STEEP = {"training": {"epochs": 8, "learning_rate": 5e-2}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Round 1 teaches `polite`; round 2 `short` and, among its pairs, some that say the opposite of `polite`."""
    root = tmp_path_factory.mktemp("explain")
    ws = Workspace.init(root / "ws", base=build_tiny_model(root / "model"))
    for k, (name, better, worse) in enumerate((("polite", "yes", "nay"), ("short", "hot", "icy"))):
        ws.store.add(entries(80, source=name, better=better, worse=worse, seed=k))
        ws.freeze(name=name, rule=FreezeRule(sources=(name,)))
    first = ws.round(ws.plan(settings(version="polite", **STEEP))).run(where="here")
    against = ws.version("polite").pairs("train")[:PLANTED]
    turned = [replace(p, chosen=p.rejected, rejected=p.chosen, slices={"domain": "planted"}) for p in against]
    both = write_version([*ws.version("short").pairs(), *turned], ws.versions.directory, rule={}, watermark=0, head="")
    ws.versions.add("mixed", both.digest)
    second = ws.round(ws.plan(settings(version="mixed", parent=first.child.digest, **STEEP))).run(where="here")
    return ws, second


def test_planted_contradictions_are_the_first_that_are_found(world):
    ws, second = world
    seen = []
    found = explain(ws, second.child.digest, "polite", where="here", watch=seen.append)
    first = found.causes[:PLANTED]
    planted = [cause.pair.slices["domain"] == "planted" for cause in first]
    assert sum(planted) >= 0.75 * PLANTED
    assert found.half <= PLANTED
    assert sum(abs(cause.share) for cause in found.causes) == pytest.approx(1)
    assert found.by_slice[0][:2] == ("domain", "planted")
    assert seen[-1].done == seen[-1].total


def test_a_share_is_the_product_of_two_gradients(world, monkeypatch):
    """Against autograd: the loss of a training pair, and the mean margin of what turned, at the child and its parent.

    By a tenth of the usual step, which this small model's rounding allows: a policy made by steep rounds, as here, bends
    within the usual one.
    """
    from workbench.models.numerics import apply_numerics
    from workbench.models.weights import set_weights
    from workbench.rounds.planning import version_ref
    from workbench.rounds.run import _Steps
    from workbench.tasks import ExplainJob
    from workbench.training import influence
    from workbench.training.influence import _Measure

    monkeypatch.setattr(influence, "STEP_NATS", influence.STEP_NATS / 10)
    ws, second = world
    plan = ws.plan(settings(version="mixed", parent=ws.registry.get(second.child.digest).parent, **STEEP))
    steps = _Steps(plan, None, ws.services())
    fell = version_ref(ws.version("polite").digest, ws.versions.directory)
    job = ExplainJob(steps.train_job(), ws.registry.ref(second.child), fell, "", "")
    measure = _Measure(job, lambda _: False)
    with apply_numerics(job.numerics):
        start, end = (measure._logps(measure._old, point).margin > 0 for point in measure._points)
        turned = [measure._old[i] for i in (start & ~end).nonzero()[:, 0].tolist()]
        expected = torch.zeros(len(measure._rows))
        for point in measure._points:
            set_weights(measure._model, point)
            way = measure._back(turned)
            for k, row in enumerate(measure._rows):
                chosen, rejected = measure._sides([(row.chosen, row.rejected)])
                logit = plan.objective.beta * (chosen - rejected - (row.reference[0] - row.reference[1]))
                measure._model.zero_grad()
                (-torch.nn.functional.logsigmoid(logit)).sum().backward()
                parameters = dict(measure._model.named_parameters())
                expected[k] += sum(float((parameters[n].grad * g).sum()) for n, g in way.items()) / 2
        harms = measure.harms()
    found = torch.tensor([harms[row.key] for row in measure._rows])
    torch.testing.assert_close(found, 8 * expected, rtol=0.05, atol=0.05 * float(found.abs().max()))  # 8 epochs


def test_it_is_kept_and_found_again(world):
    ws, second = world
    once = explain(ws, second.child.digest, "polite", where="here")
    steps = ws.journal.status(second.round).steps
    assert sum(step.name.startswith("explain") for step in steps) == 1
    assert explained(ws, second.round, ws.version("polite").digest, "") == once
    assert explained(ws, second.round, ws.version("short").digest, "") is None


@pytest.mark.parametrize(
    ("policy", "version", "within", "words"),
    [
        ("base", "polite", "", "no round on pairs of this workspace made it"),
        ("champion", "polite", "domain=none", "no train or select pairs of domain=none"),
        ("1", "polite", "", "too little to explain"),
    ],
)
def test_what_cannot_be_explained_says_why(world, policy, version, within, words):
    ws, _ = world
    with pytest.raises(ConfigError, match=words):
        explain(ws, policy, version, within=within, where="here")


def test_the_verb_prints_the_worst(world):
    ws, second = world
    done = CliRunner().invoke(app, ["explain", second.child.digest, "polite", "-w", str(ws.root), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["causes"][0]["slices"] == [["domain", "planted"]]


def test_the_page_asks_the_runner_and_shows_what_to_do(world):
    ws, second = world
    cell = {"policy": second.child.digest, "cell": f"{second.child.digest[:16]} accuracy retention/{ws.version('polite').digest}",
            "within": "domain=polite"}  # fmt: skip
    with drift_served(ws) as url, client(url) as web:
        assert "Find the training pairs behind it" in web.get("/drift/rows", params=cell).text
        form = {"policy": second.child.digest, "version": ws.version("polite").digest, "within": "domain=polite"}
        assert web.post("/drift/explain", data=form).status_code == 200
        assert web.post("/drift/explain", data=form).status_code == 200  # a second click asks once
        (request,) = [r for r in Requests(ws.store.engine).all() if r.kind == "explain"]
        assert "waiting for the runner" in web.get("/drift/rows", params=cell).text
        left = iter([False, True])
        act_on_requests(ws, where="here", tell=lambda _: None, until=lambda: next(left))
        assert Requests(ws.store.engine).all()[request.number - 1].state == "done"
        shown = web.get("/drift/rows", params=cell).text
        assert "planted" in shown
        assert "Replay more" in shown
        assert f"Branch from {ws.registry.resolve('1').name}" in shown
        rows = web.get("/drift/causes.jsonl", params=form).text.splitlines()
        assert json.loads(rows[0])["slices"]["domain"] == "planted"
        planned = web.get("/rounds", params={"parent": ws.registry.resolve("1").name, "replay.share": "0.5"}).text
        assert 'value="0.5"' in planned
        missing = web.post("/drift/explain", data={"policy": "nobody", "version": "none"})
        assert missing.status_code == 404
