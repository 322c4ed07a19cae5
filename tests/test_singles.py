"""Thumbs that stand alone: kept by a version beside its pairs, made into training answers, and held out."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from preference_data.errors import VersionError
from preference_data.freeze import FreezeRule, freeze
from preference_data.records import Pair, Prompt, Single, Thumb
from preference_data.versions import MANIFEST_FILE, SINGLES_FILE, load_version, write_version
from tests.test_freeze import ANY, FIRST, Said, entry, prompt_of, store_of
from workbench.answers import BAD, GOOD, SIDE, answers_of, mismatched
from workbench.drift.metrics import Series
from workbench.drift.singles import Sides, auc, auc_change
from workbench.maths import kto, kto_logit

__all__ = ["store_of"]
UP, DOWN = Thumb(up=True), Thumb(up=False)


def frozen(store, tmp_path, rule=ANY):
    version, report = freeze(store, rule, tmp_path / "versions")
    version.verify()
    return version, report


def test_thumbs_of_several_people_on_one_answer_are_one_single_by_majority(store_of, tmp_path):
    asked = prompt_of("train"), prompt_of("select"), prompt_of("test")
    liked = entry(asked[0], ["fine"], Said(UP), Said(UP, "bo"), Said(DOWN, "cy"), slices={"language": "en"})
    store = store_of(
        liked,
        entry(asked[1], ["x" * 800], Said(DOWN)),
        entry(asked[2], ["so"], Said(UP), Said(DOWN, "bo")),
        entry(asked[2], ["good", "bad"], Said(FIRST)),
    )
    version, report = frozen(store, tmp_path)
    one, other = (version.singles(split)[0] for split in ("train", "select"))
    # Two of three say it is good: (2 - 1) / 3.
    assert (one.completion, one.good, one.weight) == ("fine", True, pytest.approx(1 / 3))
    assert one.judgements == tuple(sorted(judgement.key for judgement in liked.judgements))
    assert (one.slices["source"], one.slices["language"], one.slices["length_band"]) == ("file", "en", "short")
    assert (other.good, other.weight, other.slices["length_band"]) == (False, 1.0, "long")
    assert report.singles == {"train": 1, "select": 1, "test": 0}
    assert (report.singles_left_out, report.judgements_left_out) == ({"contradiction": 1}, {})
    assert (report.pairs_formed, report.pairs_left_out, report.counts["test"]) == (1, {}, 1)


def test_of_near_twins_one_stays_and_a_light_single_goes(store_of, tmp_path):
    text = "one and the same long answer to whatever was asked here, word by word, "
    asked = prompt_of("train")
    store = store_of(
        *(entry(asked, [text + end], Said(UP, who)) for end, who in (("yes", "ann"), ("Yes", "bo"))),
        entry(asked, [text + "no"], Said(DOWN, "cy")),
        entry(prompt_of("test"), ["so"], Said(UP), Said(UP, "bo"), Said(DOWN, "cy")),
    )
    version, report = frozen(store, tmp_path, FreezeRule(min_pairs=0, min_weight=0.5))
    assert [one.good for one in version.singles()].count(True) == 1
    assert report.singles_left_out == {"near-duplicate answer": 1, "weight below the minimum": 1}
    assert report.singles["train"] == 2


def test_single_answers_alone_make_a_version_and_count_towards_its_fewest(store_of, tmp_path):
    store = store_of(*(entry(prompt_of(split), ["so"], Said(UP)) for split in ("train", "select", "test")))
    version, _ = frozen(store, tmp_path, FreezeRule())
    assert (version.pairs(), len(version.singles())) == ([], 3)
    with pytest.raises(VersionError, match="train has 1, select has 1, test has 1; expected at least 2"):
        freeze(store, FreezeRule(min_pairs=2), tmp_path / "versions")


def pair(prompt, chosen, rejected, weight=1.0):
    return Pair(Prompt.of(prompt), chosen, rejected, weight, None, (f"{chosen}>{rejected}",), {}, "train")


def single(prompt, text, *, good, weight=1.0, split="train"):
    return Single(Prompt.of(prompt), text, good, weight, (text,), {"source": "thumbs"}, split)


def written(folder, pairs, singles=()):
    return write_version(pairs, folder, singles=singles, rule={}, watermark=0, head="")


def test_a_version_without_single_answers_says_nothing_of_them(tmp_path):
    version = written(tmp_path, [pair("a", "b", "c")])
    manifest = json.loads((version.path / MANIFEST_FILE).read_text())
    assert sorted(manifest) == ["check", "counts", "digest", "head", "parent", "rule", "schema_version", "sha256", "size",
                                "slices", "watermark"]  # fmt: skip
    assert not (version.path / SINGLES_FILE).exists()
    both = written(tmp_path, [pair("a", "b", "c")], [single("a", "d", good=True)])
    assert both.digest != version.digest
    assert both.digest != written(tmp_path, [pair("a", "b", "c")], [single("a", "d", good=False)]).digest
    assert both.singles() == [single("a", "d", good=True)]


def test_damaged_single_answers_are_refused(tmp_path):
    version = written(tmp_path, [], [single("a", "d", good=True)])
    (version.path / SINGLES_FILE).write_bytes((version.path / SINGLES_FILE).read_bytes()[:-1] + b"x")
    with pytest.raises(VersionError, match=r"singles\.parquet: damaged"):
        load_version(version.path)


def test_all_that_is_said_of_an_answer_counts_together(tmp_path):
    version = written(
        tmp_path,
        # a > b > c: b is better and worse, which says nothing.
        [pair("p", "a", "b"), pair("p", "b", "c"), pair("p", "a", "c"), pair("q", "d", "e", 0.5)],
        # c is bad in two pairs and good here: (1 + 1 - 0.5) / 3; d is good in both: (0.5 + 1) / 2.
        [
            single("p", "c", good=True, weight=0.5),
            single("q", "d", good=True),
            single("q", "f", good=False, split="test"),
        ],
    )
    found = {(one.chosen, one.slices[SIDE]): one.weight for one in answers_of(version)}
    assert found == {("a", GOOD): 1.0, ("c", BAD): 0.5, ("d", GOOD): 0.75, ("e", BAD): 0.5}
    (c,) = (one for one in answers_of(version) if one.chosen == "c")
    assert (c.judgements, c.rejected, c.slices["source"]) == (("a>c", "b>c", "c"), "", "thumbs")


def test_every_answer_lies_beside_one_to_another_prompt():
    asked = [("p", "a b c"), ("q", "d"), ("r", "e f")]
    answers = [pair(prompt, text, "") for prompt, texts in asked for text in texts.split()]
    of = {text: prompt for prompt, texts in asked for text in texts.split()}
    found = mismatched(answers, 3)
    assert sorted(one.chosen for one in found) == sorted(of)
    assert all(of[one.chosen] != of[one.rejected] for one in found)
    assert max(Counter(one.rejected for one in found).values()) <= 2
    assert found == mismatched(answers[::-1], 3)
    assert any(found != mismatched(answers, seed) for seed in range(4, 9))


def test_kto_by_hand():
    ratios, elsewhere = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.6, -0.2, 0.2]).double()
    good = torch.tensor([True, True, False])
    # z = 0.2; h = 0.5 (1 - 0.2) = 0.4, 0.5 (-2 - 0.2) = -1.1, 0.5 (0.2 - 0.5) = -0.15
    assert kto_logit(ratios, elsewhere, good, beta=0.5).tolist() == pytest.approx([0.4, -1.1, -0.15])
    found = kto(ratios, elsewhere, good, beta=0.5, good_weight=2.0, bad_weight=1.5)
    expected = [2 / (1 + math.exp(0.4)), 2 / (1 + math.exp(-1.1)), 1.5 / (1 + math.exp(-0.15))]
    assert found.tolist() == pytest.approx(expected)
    # Below zero the reference point is zero, and where nothing moved the loss is half the weight.
    nothing = torch.zeros(3).double()
    assert kto_logit(ratios, nothing - 5, good, beta=1.0).tolist() == [1.0, -2.0, -0.5]
    assert kto(nothing, nothing, good, beta=0.5, bad_weight=3.0).tolist() == [0.5, 0.5, 1.5]
    with pytest.raises(ValueError, match="share one shape"):
        kto(ratios, elsewhere[:2], good, beta=0.5)


def test_kto_is_that_of_trl():
    drawn = torch.Generator().manual_seed(0)
    policy, reference, policy_kl, reference_kl = torch.randn(4, 16, generator=drawn, dtype=torch.float64)
    good = torch.arange(16) % 3 == 0
    # As TRL 1.16 has it (trainer/kto_trainer.py), with beta 0.3, desirable_weight 1.3 and undesirable_weight 0.7.
    kl = (policy_kl - reference_kl).mean().detach().clamp(min=0)
    chosen = 1 - torch.sigmoid(0.3 * ((policy - reference)[good] - kl))
    rejected = 1 - torch.sigmoid(0.3 * (kl - (policy - reference)[~good]))
    theirs = torch.cat((1.3 * chosen, 0.7 * rejected), 0)
    ours = kto(policy - reference, policy_kl - reference_kl, good, beta=0.3, good_weight=1.3, bad_weight=0.7)
    torch.testing.assert_close(torch.cat((ours[good], ours[~good])), theirs, rtol=1e-6, atol=0)


def test_kto_has_its_gradient_and_none_through_the_reference_point():
    good = torch.tensor([True, False, True])
    ratios = torch.tensor([0.3, -0.4, 2.0], dtype=torch.float64, requires_grad=True)
    elsewhere = torch.tensor([0.5, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: kto(r, elsewhere.detach(), good, beta=0.7), ratios)
    kto(ratios, elsewhere, good, beta=0.7).sum().backward()
    assert elsewhere.grad is None


def sides(good, bad, groups=None):
    names = groups or [f"{i}" for i in range(len(good) + len(bad))]

    def series(name, values, own):
        return Series(tuple(f"{name}{i}" for i in range(len(values))), np.array(values, dtype=float), tuple(own))

    return Sides(series("g", good, names[: len(good)]), series("b", bad, names[len(good) :]))


def test_the_auc_by_hand():
    # Rewards over the base: good 3, 1, 2; bad 1, 0, -1, 2. Of 12 couples 9 in order, 2 tied (1 and 1, 2 and 2).
    base = sides([-1, -2, -3], [-4, -5, -6, -7])
    own = sides([2, -1, -1], [-3, -5, -7, -5])
    found = auc(own, base)
    assert (found.value, found.n) == (pytest.approx(10 / 12), 7)
    # Placements of the good ones 1, 5/8, 7/8, of the bad ones 5/6, 1, 1, 1/2; one imagined at 0 and at 1 of
    # either kind, so that there are 5 and 6.
    parts = [(p - 10 / 12) / 5 for p in (1, 5 / 8, 7 / 8, 0, 1)] + [
        (p - 10 / 12) / 6 for p in (5 / 6, 1, 1, 1 / 2, 0, 1)
    ]
    half = stats.t.ppf(0.975, 6) * math.sqrt(7 / 6 * sum(p * p for p in parts))
    assert (found.low, found.high) == (pytest.approx(10 / 12 - half), 1.0)


def test_a_shift_of_all_rewards_changes_no_auc_and_the_base_has_none():
    base = sides([0, 0, 0], [0, 0, 0])
    own = sides([2, 3, 4], [-1, 0, 1])
    moved = sides([-6, -5, -4], [-9, -8, -7])
    assert auc(own, base)[:3] == auc(moved, base)[:3]
    assert (auc(own, base).value, auc(base, base).value) == (1.0, 0.5)
    change = auc_change(own, base, base)
    assert change.value == 0.5
    assert change.low < 0.5 < change.high, "perfect order of six answers is no certainty"
    assert auc_change(own, moved, base).value == 0


def test_too_few_or_other_answers_give_no_auc():
    few = sides([1, 2], [0, 0])
    assert auc(few, few).method == "4 independent groups, at least 5 needed"
    together = sides([1, 2, 3], [0, 0, 0], groups=list("aabbcc"))
    assert auc(together, together).value is None
    assert "same bad answers" in auc(sides([1, 2, 3], [0, 0, 0]), sides([1, 2, 3], [0, 0])).method
