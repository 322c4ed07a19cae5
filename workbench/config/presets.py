"""Named combinations of settings: what has been published, and what this project measured (docs/methods.md)."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from pydantic import BaseModel

PARENT = {"policy": "parent", "weight": 1.0}
BASE = {"policy": "base", "weight": 1.0}
HALVES = [{"policy": "parent", "weight": 0.5}, {"policy": "base", "weight": 0.5}]
SOME = {"share": 0.2}
QUARTER = {"share": 0.25, "of": "each", "draw": "epoch"}
SHARPER = {"beta": 0.5}
"""A policy that is right by a few nats is left alone; at 0.1 it is pushed on for twenty, over what earlier rounds taught."""


class Method(NamedTuple):
    """A named combination.

    Attributes:
        summary: what it does, in one sentence.
        source: where it comes from.
        settings: of a round, as TOML would have them.
    """

    summary: str
    source: str
    settings: Mapping[str, Any]


REFERENCE = frozenset({"anchors", "schedule"})
"""Two ways to say what the reference is: whoever says one of them leaves none of the method's."""
DEFAULT = "recommended"
"""The method of a round that names none."""
DPO = "Rafailov et al., arXiv 2305.18290"
GEOMETRIC = "arXiv 2502.01203"

METHODS: Mapping[str, Method] = {
    "recommended": Method(
        "a quarter of every earlier round replayed, drawn anew in every epoch, held by the parent and not let fall; new pairs "
        "held by the base",
        "docs/methods.md",
        {"schedule": {"kind": "apart"}, "objective": SHARPER, "replay": QUARTER, "penalties": {"hold": 1.0}},
    ),
    "equal-replay": Method(
        "replay alone, as much of it as `recommended` has", "experience replay, arXiv 1811.11682",
        {"objective": SHARPER, "replay": QUARTER},
    ),
    "plain": Method("sequential DPO, the parent as reference", DPO, {}),
    "base": Method("sequential DPO, the base as reference", DPO, {"anchors": [BASE]}),
    "mix": Method("parent and base as one reference", GEOMETRIC, {"anchors": HALVES}),
    "uniform": Method("all earlier policies as one reference", GEOMETRIC, {"schedule": {"kind": "uniform"}}),
    "age": Method("all earlier policies, newer ones weigh more", GEOMETRIC, {"schedule": {"kind": "age"}}),
    "drift": Method(
        "policies whose version has fallen since get weight", GEOMETRIC, {"schedule": {"kind": "drift"}}
    ),
    "replay": Method(
        "one replayed pair for every five new ones", "experience replay, arXiv 1811.11682", {"replay": SOME}
    ),
    "base-replay": Method(
        "base as reference, with replay", "experience replay, arXiv 1811.11682", {"anchors": [BASE], "replay": SOME}
    ),
    "mix-replay": Method(
        "parent and base as one reference, with replay", GEOMETRIC, {"anchors": HALVES, "replay": SOME}
    ),
    "learner": Method(
        "replayed pairs are held by the policy that learned them", GEOMETRIC,
        {"schedule": {"kind": "learner"}, "replay": SOME},
    ),
    "origin": Method(
        "replayed pairs keep the reference they were learned with", GEOMETRIC,
        {"schedule": {"kind": "origin"}, "replay": SOME},
    ),
    "slice": Method(
        "a pair is held by the policy best on its slice", GEOMETRIC, {"schedule": {"kind": "slice"}, "replay": SOME}
    ),
    "retrain": Method(
        "from the base, on all data so far", DPO, {"start": "base", "anchors": [BASE], "replay": {"share": "all"}}
    ),
    "coverage": Method(
        "replay spread over slices", "coverage as in InsCL, arXiv 2403.11435",
        {"replay": {"share": 0.2, "choice": "coverage"}},
    ),
    "margin": Method(
        "replay spread over the parent's margins", "quartiles as in arXiv 2606.19744",
        {"replay": {"share": 0.2, "choice": "margin"}},
    ),
    "fresh": Method(
        "replayed prompts, answered and ranked by the parent", "OnPolicyReplay, arXiv 2605.29495, on preferences",
        {"replay": {"share": 0.2, "answers": "fresh"}},
    ),
    "ns-dpo": Method(
        "replay whose weight falls with age", "NS-DPO, arXiv 2407.18676", {"replay": {"share": 0.2, "age_weight": 0.8}}
    ),
    "hold": Method(
        "replayed pairs may gain, but not lose, against the parent", "one-sided form of dark experience replay, "
        "arXiv 2004.07211", {"replay": SOME, "penalties": {"hold": 1.0}},
    ),
    "kl-new": Method("KL to the parent on new pairs", "KL-regularised DPO", {"penalties": {"kl_new": 0.5}}),
    "kl-old": Method(
        "KL to the parent on replayed pairs", "KL on a memory of old prompts, arXiv 2607.04364",
        {"replay": SOME, "penalties": {"kl_old": 0.5}},
    ),
    "budget": Method(
        "KL to the parent at replayed answers, steered to a budget", "adaptive KL, arXiv 1909.08593",
        {"replay": SOME, "penalties": {"kl_old": 0.5, "kl_budget": 0.05}},
    ),
    "ema": Method(
        "half of the reference follows the policy", "EMA anchor of WARP, arXiv 2406.16768",
        {"moving": {"share": 0.5, "rate": 0.01}},
    ),
    "tr-dpo": Method(
        "a reference that is moved towards the policy now and then", "TR-DPO, arXiv 2404.09656",
        {"moving": {"share": 1.0, "rate": 0.6, "every": 32}},
    ),
    "tr-dpo-hard": Method(
        "a reference that becomes the policy now and then", "TR-DPO's hard update, arXiv 2404.09656",
        {"moving": {"share": 1.0, "rate": 1.0, "every": 32}},
    ),
    "ewc": Method("weights that mattered to old pairs stay", "EWC, arXiv 1612.00796", {"penalties": {"ewc": 50.0}}),
    "lifealign": Method(
        "focused loss, replay, and updates freed of earlier directions", "LifeAlign, arXiv 2509.17183",
        {"objective": {"loss": "fpo"}, "replay": {"share": 0.2, "of": "each"}, "after": {"overlap": 0.5}},
    ),
    "copr": Method(
        "fits the optimum of each round, old ones on replayed pairs", "COPR, arXiv 2402.14228",
        {"objective": {"loss": "copr"}, "schedule": {"kind": "origin"}, "replay": SOME},
    ),
    "cppo": Method(
        "pairs weighted by confidence, held to the parent's probabilities", "CPPO, OpenReview 86zAUE80pP, as DPO",
        {"objective": {"loss": "cppo"}},
    ),
    "average": Method(
        "the child averaged with its parent, share chosen on select", "model averaging, arXiv 2309.06256",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6]}},
    ),
    "hma": Method(
        "the same with shares per block of layers", "HMA, arXiv 2309.06256",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6], "blocks": 3}},
    ),
    "average-replay": Method(
        "replay, then the average", "arXiv 2309.06256", {"replay": SOME, "after": {"keep": [0.0, 0.2, 0.4, 0.6]}}
    ),
    "o-lora": Method(
        "updates that read from other directions than earlier rounds' updates", "O-LoRA, arXiv 2310.14152, on updates",
        {"penalties": {"orthogonal": 1.0}},
    ),
    "on-dare": Method(
        "half of every step dropped at random, and a trace of what earlier rounds did added", "OnDARE, arXiv 2405.17931",
        {"merging": {"kind": "dare"}},
    ),
    "on-ties": Method(
        "the half of every step that is large and not outvoted by earlier rounds, and a trace of them",
        "OnTIES, arXiv 2405.17931", {"merging": {"kind": "ties"}},
    ),
    "slerp": Method(
        "the child merged with its parent along a sphere, share chosen on select", "SLERP of WARP, arXiv 2406.16768",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6], "merge": "slerp"}},
    ),
    "ties": Method(
        "the average with an update without its small parts and what earlier rounds outvote", "TIES, arXiv 2306.01708",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6], "merge": "ties"}},
    ),
    "dare": Method(
        "the average with an update of which half is dropped at random", "DARE, arXiv 2311.03099",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6], "merge": "dare_linear"}},
    ),
    "dare-ties": Method(
        "the same without what earlier rounds outvote", "DARE with TIES, arXiv 2311.03099",
        {"after": {"keep": [0.0, 0.2, 0.4, 0.6], "merge": "dare_ties"}},
    ),
}  # fmt: skip
"""By name."""


def with_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of their method wherever they do not say otherwise.

    Raises:
        ValueError: the method is unknown; lists the known ones.
    """
    name = values.get("method", DEFAULT)
    if name not in METHODS:
        raise ValueError(f"method = {name!r}: unknown; known methods: {', '.join(METHODS)}")
    said = any(values.get(each) for each in REFERENCE)  # a section without a value says nothing
    return _over({k: v for k, v in METHODS[name].settings.items() if not (said and k in REFERENCE)}, values)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        over = above[name].model_dump(exclude_unset=True) if isinstance(above[name], BaseModel) else above[name]
        if isinstance(below[name], Mapping) and isinstance(over, Mapping):
            merged[name] = _over(below[name], cast("Mapping[str, Any]", over))
    return merged
