"""Mixtures of a policy with its parent: what they are, what is measured of them, where it is shown."""

import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.between import measure_between
from workbench.cli import app
from workbench.errors import ConfigError
from workbench.models.load import load_full
from workbench.policies.lineage import points_between
from workbench.reports.figures import line, nowhere
from workbench.tasks import MergeJob
from workbench.views.inspection import Inspection
from workbench.workspace import Workspace


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory):
    model = build_tiny_model(tmp_path_factory.mktemp("model"))
    ws = two_versions(tmp_path_factory.mktemp("ws") / "ws", model)
    for version in ("polite", "short"):
        suites = {"suites": ["text", "refusal"]}
        ws.round(ws.plan(settings(version=version, evaluation=suites))).run(where="here")
    return ws


def drawn(ws):
    inspection = Inspection(ws)
    return line(inspection.overview(inspection.newest()), nowhere)


def test_a_mixture_has_its_share_of_both_weights(two_rounds, tmp_path):
    lineage = two_rounds.registry.lineage(two_rounds.registry.resolve("champion").digest)
    base, first, second = (two_rounds.registry.ref(p) for p in lineage)
    folders = {}
    for name, policy, start, share in (
        ("parent", first, None, 1.0), ("child", second, None, 1.0), ("mixed", second, first, 0.25), ("base", first, base, 0.0),
    ):  # fmt: skip
        folders[name] = tmp_path / name
        folders[name].mkdir()
        job = MergeJob(policy, str(folders[name]), settings().numerics, None, start, share)
        assembly.merge(job, lambda _: False)
    parent, child, mixed, original = (
        load_file(folders[n] / "model.safetensors") for n in ("parent", "child", "mixed", "base")
    )
    moved = [name for name in mixed if not (child[name] == parent[name]).all()]
    assert moved
    for name, weights in mixed.items():
        assert (weights - (0.25 * child[name] + 0.75 * parent[name])).abs().max() < 1e-6
    for name, weights in load_file(f"{base.path}/model.safetensors").items():
        assert (original[name] == weights).all()


def test_tied_weights_are_mixed_once(two_rounds, tmp_path):
    base = two_rounds.registry.ref(two_rounds.registry.resolve("base"))
    moved = load_full(base.path)
    assert moved.get_input_embeddings().weight is moved.get_output_embeddings().weight
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(1.0)
    moved.save_pretrained(tmp_path / "moved")
    (tmp_path / "mixed").mkdir()
    other = base._replace(digest="f" * 64, path=str(tmp_path / "moved"))
    assembly.merge(MergeJob(other, str(tmp_path / "mixed"), settings().numerics, None, base, 0.25), lambda _: False)
    mixed, start = load_file(tmp_path / "mixed" / "model.safetensors"), load_file(f"{base.path}/model.safetensors")
    for name, weights in mixed.items():
        assert torch.allclose(weights, start[name].float() + 0.25, atol=1e-5), name


def test_what_lies_between_is_measured_once_and_drawn(two_rounds, monkeypatch):
    empty = drawn(two_rounds)
    assert empty.drawn is None
    assert f"evaluate {two_rounds.registry.resolve('champion').name} --between 0.25,0.5,0.75" in empty.why

    result = CliRunner().invoke(
        app, ["evaluate", "champion", "--between", "0.5", "--json", "-w", str(two_rounds.root)], catch_exceptions=False
    )
    found = json.loads(result.stdout)["between"]["0.5"]
    retained = {f"retention/{e.digest}" for e in two_rounds.version_entries()}
    assert retained <= set(found)

    champion = two_rounds.registry.resolve("champion")
    name = points_between(champion.parent, champion.digest)[0.5]
    measured = two_rounds.ledger.suites(name)
    assert {m.numerics for m in measured} <= {m.numerics for m in two_rounds.ledger.suites(champion.digest)}

    figure = drawn(two_rounds)
    assert "50% of the way" in figure.drawn
    assert {policy for policy, _, _ in figure.numbers} == {champion.parent, name, champion.digest}

    again = Workspace(two_rounds.root)
    monkeypatch.setattr(assembly, "IN_PROCESS", None)  # nothing is merged or asked again
    measure_between(again, "champion", [0.5], where="here")
    assert again.ledger.suites(name) == measured


@pytest.mark.parametrize(
    ("policy", "share", "why"),
    [("base", 0.5, "no round"), ("champion", 1.0, "twentieths"), ("champion", 0.33, "twentieths")],
)
def test_what_cannot_lie_between_says_why(two_rounds, policy, share, why):
    with pytest.raises(ConfigError, match=why):
        measure_between(two_rounds, policy, [share], where="here")
