"""What the drift page says of reward models, over made-up numbers."""

import math
import re

from tests import drift_kit
from tests.drift_kit import PLAIN, POLITE, items
from ui.reward_part import rewards_part
from workbench.reward_list import RewardModels, RewardRecord, condition_of, measured

world, web = drift_kit.world, drift_kit.web
NUMERICS = {"dtype": "float32", "base": "whole", "device": "cpu", "threads": 1}


def model(world, name, right, *, version=PLAIN, members=()):
    """A reward model that ranks so many of twenty pairs of each version rightly, all by the same difference."""
    record = RewardRecord(name, name[0] * 64, world.base.digest, version, members, name, NUMERICS, 64, "2026-01-01")
    RewardModels(world.ws).add(record)
    for digest, count in right.items():
        ahead = [math.log(3)] * count + [-math.log(3)] * (20 - count)  # as sure as three to one
        world.ws.ledger.record(record.digest, condition_of(record), items(f"reward/{digest}", "margin", ahead))
    return record


def test_accuracy_and_sureness_by_hand(world):
    record = model(world, "dora", {PLAIN: 18, POLITE: 12})
    found = measured(world.ws, record)
    assert [round(found[v].accuracy.value, 3) for v in (PLAIN, POLITE)] == [0.9, 0.6]
    assert [round(found[v].overconfident.value, 3) for v in (PLAIN, POLITE)] == [-0.15, 0.15]


def test_every_model_and_version_is_in_the_table(world):
    model(world, "dora", {PLAIN: 18, POLITE: 12})
    model(world, "emil", {PLAIN: 14}, version=POLITE)
    model(world, "mean", {PLAIN: 16, POLITE: 16}, version="", members=("d" * 64, "e" * 64))
    told = rewards_part(world.ws)
    rows = {
        name: cells
        for name, *cells in (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)[1:] for row in told.split("<tr>")[1:])
    }
    heads = rows.pop("version")
    assert [head.split(" <")[0] for head in heads] == ["dora", "emil", "mean"]
    assert "mean of 2" in heads[2]
    assert [cell.split(" ")[0] for cell in rows["plain"]] == ["0.900", "0.700", "0.800"]
    assert ["●" in cell for cell in rows["plain"]] == [True, False, False], "the version it was trained on is marked"
    assert rows["polite"][1] == "not measured ●"
    assert rows["surer than right"][0].startswith(("-0.150", "−0.150"))
    assert told.count("<svg") == 1
    assert "later" not in told, "a version that no model was asked about has no column"


def test_a_model_that_was_asked_nothing_is_said_to_be_so(world):
    model(world, "dora", {})
    told = rewards_part(world.ws)
    assert "None" not in told
    assert "workbench rewards measure" in told
    assert "not measured" in told


def test_an_open_page_has_the_part_once_there_is_a_model(web, world):
    title = "What the reward models know of each version"
    page = web.get("/drift").text
    assert '<section id="rewards" data-source="/drift/rewards"></section>' in page
    assert (title in page, web.get("/drift/rewards").text) == (False, "")  # nothing, and no heading over it
    before = web.get("/drift/state").json()["late"]
    model(world, "dora", {PLAIN: 18})
    assert web.get("/drift/state").json()["late"] != before  # the page that is open asks anew
    first = web.get("/drift/rewards").text
    assert f"<h2>{title}</h2>" in first
    assert "0.900" in first
    model(world, "emil", {PLAIN: 14})
    assert "emil" in web.get("/drift/rewards").text, "it is made anew when something was measured"
