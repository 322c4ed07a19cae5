"""What leads see, as rows: progress, people, agreement, disputes. Undefined numbers say why instead of being 0."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO

import numpy as np

from preference_data.agreement import Agreement, fleiss_kappa, krippendorff_alpha, percent
from preference_data.annotators import Share, annotators
from preference_data.projects import Mode
from preference_data.queue import Progress
from preference_data.records import Pairwise, Ranking, Rating, Thumb
from preference_data.told import Told, dimensions, disputed, questions

PEOPLE = (
    "person", "judged", "skipped", "late", "median s", "active min", "per active hour", "like the others", "gold right",
    "same again", "took the left", "took the longer",
)  # fmt: skip
AGREEMENT = ("figure", "value", "95 % interval", "questions", "judgements", "note")
DISPUTES = ("item", "disagreement", "people", "said")
SEED = 0
"""Of the bootstrap, so that a page drawn again shows the same interval."""


def progress_text(progress: Progress) -> str:
    """How far a project is, in a sentence."""
    left = progress.items - progress.done - progress.halted
    return (
        f"{progress.done} of {progress.items} items done, {progress.halted} skipped too often, {left} open; "
        f"{progress.judgements} judgements by {progress.people} people, {progress.held} held now"
    )


def people_rows(everything: Sequence[Told]) -> list[list[str | float]]:
    """One row per person, in the order of `PEOPLE`."""
    return [
        [
            each.person,
            each.judged,
            each.skipped,
            each.late,
            "" if each.median_s is None else round(each.median_s, 1),
            round(each.active_min, 1),
            round(60 * each.judged / each.active_min) if each.active_min else "",
            share_text(each.alike),
            share_text(each.gold),
            share_text(each.steady),
            share_text(each.left),
            share_text(each.longer),
        ]
        for each in annotators(everything)
    ]


def minutes_csv(everything: Sequence[Told]) -> str:
    """Judgements and active minutes per person; pauses of more than `annotators.IDLE_S` are no activity."""
    out = StringIO()
    rows = csv.writer(out)
    rows.writerow(["person", "judged", "skipped", "active_min"])
    rows.writerows([_plain(e.person), e.judged, e.skipped, f"{e.active_min:.1f}"] for e in annotators(everything))
    return out.getvalue()


def _plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def share_text(share: Share) -> str:
    """A share with its n, and its p where it was tested against one half.

    >>> share_text(Share(9, 12, 0.146))
    '75 % of 12 (p 0.15)'
    """
    if share.value is None:
        return "none yet"
    tested = "" if share.p is None else f" (p {share.p:.2g})"
    return f"{share.value:.0%} of {share.of}".replace("%", " %") + tested


def agreement_rows(everything: Sequence[Told], mode: Mode) -> list[list[str | float]]:
    """Agreement as a share and corrected for chance, in the order of `AGREEMENT`."""
    rows: list[list[str | float]] = []
    for dimension in dimensions(everything) or [""]:
        prefix = f"{dimension}: " if dimension else ""
        for name, each in _figures(everything, mode, dimension):
            rows.append([prefix + name, *_agreement_cells(each)])
    return rows


def _figures(everything: Sequence[Told], mode: Mode, dimension: str) -> Iterator[tuple[str, Agreement]]:
    """Figures of agreement by name, on one dimension where answers were rated."""
    asked, graded = (questions(everything, ordinal=ordinal, dimension=dimension) for ordinal in (False, True))
    sides, groups = list(asked.values()), [item for item, _ in asked]
    yield "equal answers", percent(sides, _rng(), groups=groups)
    yield "Fleiss' kappa", fleiss_kappa(sides, _rng(), groups=groups)
    yield "Krippendorff's alpha, nominal", krippendorff_alpha(sides, _rng(), level="nominal", groups=groups)
    if mode in {"pairwise", "rating"}:
        name = f"Krippendorff's alpha, ordinal{', with strengths' if mode == 'pairwise' else ''}"
        found = krippendorff_alpha(list(graded.values()), _rng(), level="ordinal", groups=[item for item, _ in graded])
        yield name, found


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def _agreement_cells(each: Agreement) -> list[str | float]:
    value = "undefined" if each.value is None else f"{each.value:.3f}"
    interval = "" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
    return [value, interval, each.items, each.judgements, each.why]


def dispute_rows(everything: Sequence[Told]) -> list[list[str | float]]:
    """Items on which people differ, in the order of `DISPUTES`; answers by their order in the record."""
    return [
        [
            said[0].item,
            f"{share:.0%}".replace("%", " %"),
            len(said),
            "; ".join(f"{e.person}: {opinion_text(e)}" for e in said),
        ]
        for share, said in disputed(everything)
    ]


def opinion_text(told: Told) -> str:
    """An opinion in a few words, answers called A, B, … in the order of the record."""
    match told.opinion:
        case Pairwise(verdict, strength):
            side = {"first": "A", "second": "B"}.get(verdict.value)
            return f"{side}{'' if strength is None else '+' * strength}" if side else verdict.value
        case Thumb(up):
            return "good" if up else "bad"
        case Rating(scores):
            return " / ".join(", ".join(f"{name} {score:g}" for name, score in one.items()) for one in scores)
        case Ranking(order):
            return " > ".join(" = ".join(chr(65 + k) for k in tied) for tied in order)
