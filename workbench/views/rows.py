"""The rows behind a number: every item with what it was before and is now, those that turned for the worse first."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from preference_data.errors import VersionError
from preference_data.pair_table import read_pairs
from preference_data.versions import PAIRS_FILE
from workbench.drift.ledger import Ledger
from workbench.drift.metrics import Turned, quartiles, series, turned
from workbench.places import Places
from workbench.tasks import Item
from workbench.views.numbers import COMPLIANCE, KL, OF_QUARTER

Turn = Literal["lost", "gained", "same", "new"]
"""What became of an item: right before and wrong now, the other way round, neither, or not measured before."""
ORDER: Mapping[Turn, int] = {"lost": 0, "gained": 1, "same": 2, "new": 3}

_METRICS = {
    "level": ("correct", "bits"), "tax": ("correct", "bits", "refused"), "step tax": ("correct", "bits"),
    "length": ("tokens",), "length change": ("tokens",), "distinct-2": ("tokens",),
    "finished": ("finished",), "refused": ("refused",), "refused safe": ("refused",), "refused unsafe": ("refused",),
}  # fmt: skip
"""Metrics a number is made of, where it is not of margins or named as its metric."""
_LABELS = {"refused safe": "label=safe", "refused unsafe": "label=unsafe"}
"""Which of its suite's items a number is of."""
ANSWERS = "samples/"
"""How suites of answers begin."""
_LOWER_IS_BETTER = ("bits", *KL, "refused")
_RIGHT_OR_WRONG = ("margin", "correct", "refused", "finished")
"""Metrics of which an item is on one side or the other, so that what turned can be tested."""
_BETTER = ("worse", "better", "the same")
_WORDS = {
    "tokens": ("shorter", "longer", "as long"),
    "refused": ("refuses now", "no longer refuses", "as before"),
}
"""What people call `lost`, `gained` and `same` where neither is better."""


class Row(NamedTuple):
    """One item.

    Attributes:
        before, now: the metric under both policies; before is None where it was not measured.
        texts: what the item is, by what it is: `prompt`, `chosen`, `rejected`, `answer before`, `answer now`, …
    """

    item: str
    turn: Turn
    before: float | None
    now: float
    group: str
    slices: Mapping[str, str]
    texts: Mapping[str, str]


class Wanted(NamedTuple):
    """Rows somebody wants to see.

    Attributes:
        policy, against: digests.
        name, suite: of the number, as in `views.numbers`.
        within: slice, such as `language=de`.
        turn: only these; all where empty.
    """

    policy: str
    against: str
    name: str
    suite: str
    condition: str
    within: str = ""
    turn: str = ""


class Found(NamedTuple):
    """What there is of it.

    Attributes:
        counts: how many of each turn; `total` are of the turn asked for, and `rows` are what was asked for of those.
        words: what `lost`, `gained` and `same` are called.
        pairs: the counts of two policies, tested; None where items have no sides.
    """

    counts: Mapping[str, int]
    total: int
    rows: tuple[Row, ...]
    words: tuple[str, str, str] = _BETTER
    pairs: Turned | None = None


def find_rows(places: Places, wanted: Wanted, *, start: int = 0, count: int = 50) -> Found:
    """Rows behind a number; those right before and wrong now come first, the furthest fallen before others.

    Args:
        places: the workspace.
        wanted: which.
        start: how many to leave out.
        count: how many at most.
    """
    ledger = Ledger(places.engine)
    metric = _metric_of(ledger, wanted)
    # Texts of pairs lie in their version; those of answers and questions beside their numbers.
    brief = wanted.suite.startswith("retention/")
    label = _LABELS.get(wanted.name, "")
    now, before = (
        _within(_within(ledger.items(p, wanted.suite, metric, wanted.condition, brief=brief), wanted.within), label)
        for p in (wanted.policy, wanted.against)
    )
    if quarter := OF_QUARTER.get(wanted.name):
        now = _of_quarter(now, before, quarter)
    earlier = {row.item: row for row in before}
    both = [(row, earlier.get(row.item)) for row in now]
    told: list[tuple[Turn, tuple[Item, Item | None]]] = [(_turn(metric, *each), each) for each in both]
    listed = sorted(told, key=lambda one: (ORDER[one[0]], _size(*one[1])))
    counts = {turn: sum(one[0] == turn for one in listed) for turn in ORDER}
    chosen = [one for one in listed if wanted.turn in {"", one[0]}]
    part = chosen[start : start + count]
    keys = [one[1][0].item for one in part]
    if brief:
        texts = _pair_texts(places, wanted.suite, keys)
    else:
        texts = _answer_texts(ledger, wanted, keys) if metric != "tokens" and wanted.suite.startswith(ANSWERS) else {}
    rows = tuple(_row(turn, own, old, texts.get(own.item)) for turn, (own, old) in part)
    pairs = turned(counts["lost"], counts["gained"], len(listed) - counts["new"]) if metric in _RIGHT_OR_WRONG else None
    return Found(counts, len(chosen), rows, _WORDS.get(metric, _BETTER), pairs)


def _metric_of(ledger: Ledger, wanted: Wanted) -> str:
    if wanted.name.startswith((*KL, COMPLIANCE)):
        return wanted.name
    there = {m.metric for m in ledger.suites(wanted.policy) if m.suite == wanted.suite}
    return next((one for one in _METRICS.get(wanted.name, ()) if one in there), "margin")


def _within(items: Sequence[Item], within: str) -> list[Item]:
    name, _, value = within.partition("=")
    return [row for row in items if not within or row.slices.get(name) == value]


def _of_quarter(now: Sequence[Item], before: Sequence[Item], quarter: int) -> list[Item]:
    """Those of a quarter of the margins before; none where the items are not the same, which have no such number."""
    if not before or {row.item for row in now} != {row.item for row in before}:
        return []
    was = series(before)
    kept = {was.items[place] for place in quartiles(was)[quarter - 1]}
    return [row for row in now if row.item in kept]


def _turn(metric: str, own: Item, old: Item | None) -> Turn:
    if old is None:
        return "new"
    now, before = _score(metric, own.value), _score(metric, old.value)
    return "lost" if now < before else "gained" if now > before else "same"


def _score(metric: str, value: float) -> float:
    """Higher is better; of a margin only its side counts."""
    if metric == "margin":
        return (value > 0) - (value < 0)
    return -value if metric.startswith(_LOWER_IS_BETTER) else value


def _size(own: Item, old: Item | None) -> float:
    return -abs(own.value - old.value) if old else 0.0


def _row(turn: Turn, own: Item, old: Item | None, texts: Mapping[str, str] | None) -> Row:
    shown = dict(texts) if texts is not None else _own_texts(own, old)
    return Row(own.item, turn, old.value if old else None, own.value, own.group, own.slices, shown)


def _own_texts(own: Item, old: Item | None) -> dict[str, str]:
    """What the ledger says of an item; answers of both policies beside each other."""
    found = {name: _plain(value) for name, value in own.detail.items() if name != "answer"}
    for when, item in (("answer before", old), ("answer now", own)):
        if item is not None and "answer" in item.detail:
            found[when] = _plain(item.detail["answer"])
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def _answer_texts(ledger: Ledger, wanted: Wanted, keys: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Prompt and both answers of what was sampled; they lie beside the lengths, and beside no other number."""
    own, old = ({row.item: row for row in ledger.items(p, wanted.suite, "tokens", wanted.condition)}
                for p in (wanted.policy, wanted.against))  # fmt: skip
    return {key: _own_texts(own[key], old.get(key)) for key in keys if key in own}


def _pair_texts(places: Places, suite: str, keys: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Prompt and both answers of pairs; nothing where their version is gone."""
    file = places.versions.directory / suite.partition("/")[2] / PAIRS_FILE
    try:
        pairs = read_pairs(file, keys=keys) if keys else []
    except VersionError:
        return {}
    return {
        pair.key: {"prompt": "\n".join(f"{m.role}: {m.content}" for m in pair.prompt.messages), "chosen": pair.chosen,
                   "rejected": pair.rejected}
        for pair in pairs
    }  # fmt: skip
