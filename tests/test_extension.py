import json

import pytest
import torch

from preference_data.importers.importer import Source
from preference_data.importers.registry import named
from preference_data.records import now
from workbench.config import RoundSettings, settings_from
from workbench.errors import ConfigError
from workbench.evaluation.evaluate import suite_named
from workbench.maths import PairLogps, loss_named


@pytest.fixture
def extension(monkeypatch):
    """The example package as if it were installed."""
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "example_extension"))


def anchored(loss, anchors):
    values = {"objective": {"loss": loss}, "anchors": [{"policy": p, "weight": w} for p, w in anchors.items()]}
    return settings_from(values, RoundSettings, where="round.toml")


def test_a_loss_of_an_installed_package_is_accepted_and_computed(extension):
    assert anchored("squared", {"parent": 1.0}).objective.loss == "squared"
    one, lengths = torch.ones(1), PairLogps(torch.ones(1), torch.ones(1))
    policy, reference = PairLogps(3 * one, one), PairLogps(one, one)
    # margins 2 and 0, beta 0.25: h = 0.5, (1 - 0.5)^2 = 0.25
    value = loss_named("squared")(policy, reference, beta=0.25, label_smoothing=0.0, lengths=lengths)
    assert value.tolist() == [0.25]


def test_a_loss_that_says_exact_may_have_several_anchors(extension):
    assert len(anchored("squared", {"parent": 0.5, "base": 0.5}).anchors) == 2


def test_a_loss_that_says_nothing_counts_as_approximate(extension):
    with pytest.raises(ConfigError, match="'lengthy' does not say `exact = True`, so 2 anchors"):
        anchored("lengthy", {"parent": 0.5, "base": 0.5})
    assert anchored("lengthy", {"parent": 1.0})


def test_an_unknown_loss_lists_the_known_ones_with_those_of_packages(extension):
    with pytest.raises(ConfigError, match="unknown loss 'cubed'; known losses: sigmoid, .*sigmoid_norm, .*squared"):
        anchored("cubed", {"parent": 1.0})


def test_without_the_package_its_losses_are_unknown():
    with pytest.raises(ConfigError, match="unknown loss 'squared'"):
        anchored("squared", {"parent": 1.0})
    with pytest.raises(ConfigError, match="install the package that brings it"):
        loss_named("squared")


def test_a_suite_and_an_importer_of_an_installed_package_are_found(extension):
    assert suite_named("greeting").__name__ == "greeting"
    row = json.loads('{"ASK": "Which?", "GOOD": "this", "BAD": "that"}')
    entries = named("shouted").convert(row, Source("votes", now()))
    assert [c.text for c in entries[0].comparison.completions] == ["this", "that"]
