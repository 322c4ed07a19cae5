"""Verbs about what people said: `import`, `export`, `freeze`, `simulate`."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from preference_data.exporters import EXPORTERS
from preference_data.freeze import FreezeReport, FreezeRule
from preference_data.importers import ImportReport
from preference_data.reliability import Reliability
from preference_data.simulate import GUIDELINES
from workbench.cli import app, show
from workbench.cli.bars import file_bar, stage_bars
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.workspace import Workspace

REASON_CHARACTERS = 60
"""Refusals that begin alike are counted together."""


QUOTED = re.compile(r"(?<= begins ).*")
"""What a reason quotes of its row: different in every row, so left out where rows are counted."""


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help=".jsonl, .json, .csv (each also .gz), .parquet or a datasets folder.")],
    *,
    format_: Annotated[
        str | None, typer.Option("--format", help="Name of the format; told by the rows if left out.")
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="Mapping file for other formats, or the name of one.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="The first refused row ends the import.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="File for refused rows.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; store nothing.")] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Add a file of preferences; importing it twice adds nothing."""
    ws = Workspace(workspace)
    place = rejects or ws.rejects_of(file)
    with file_bar(file.name) as progress:
        report = (
            ws.preview_import(file, format=format_, mapping=mapping, rejects=place)
            if dry_run
            else ws.import_file(file, format=format_, mapping=mapping, strict=strict, rejects=place, progress=progress)
        )
    reasons = _reasons(place) if report.refused else {}
    found = {**report._asdict(), "reasons": reasons, "rejects": place if report.refused else None}
    show.result(found, as_json=as_json, render=lambda out: _render_import(out, report, reasons, place=place))


def _reasons(rejects: Path) -> dict[str, int]:
    """Refused rows by what their reasons have in common, most frequent first."""
    with rejects.open(encoding="utf-8") as file:
        reasons = (QUOTED.sub("…", json.loads(line)["reason"].partition(";")[0]) for line in file)
        found = Counter(r if len(r) <= REASON_CHARACTERS else f"{r[:REASON_CHARACTERS]}…" for r in reasons)
    return dict(found.most_common())


def _render_import(out: Console, report: ImportReport, reasons: dict[str, int], *, place: Path) -> None:
    counts = [
        ("rows read", report.read),
        ("stored", report.stored),
        ("duplicates", report.duplicates),
        ("ties kept", report.ties),
        ("refused", report.refused),
    ]
    out.print(show.table(f"read as {report.format}", ("", "#count"), counts))
    if reasons:
        out.print(show.table("refused", ("#rows", "reason"), [(n, reason) for reason, n in reasons.items()]))
        out.print(f"refused rows, with line and reason: {place}", markup=False, soft_wrap=True)
    if report.stopped:
        out.print(f"stopped early: {report.stopped}", markup=False)


@app.command()
def export(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(EXPORTERS)}.")],
    file: Annotated[Path, typer.Argument(help="A .jsonl file; replaced.")],
    *,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Write all judgements in a public format; what it cannot carry goes into a sidecar file beside it."""
    report = Workspace(workspace).export(format_, file)
    rows = [("rows in the file", report.rows), ("judgements in the sidecar alone", report.left_out)]
    show.result(
        {**report._asdict(), "file": file},
        as_json=as_json,
        render=lambda out: out.print(show.table(str(file), ("", "#count"), rows)),
    )


@app.command()
def freeze(
    *,
    name: Annotated[str, typer.Option(help="What to call the version; v1, v2, … where left out.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Comparisons of this source only; repeatable.")] = None,
    slice_: Annotated[
        list[str] | None, typer.Option("--slice", help="NAME=VALUE: comparisons of this slice only; repeatable.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out what this annotator said, as if never given; repeatable.")
    ] = None,
    reliability: Annotated[
        Reliability, typer.Option(help="How much each annotator counts: all alike, or as often as they seem right.")
    ] = "alike",
    annotator_cap: Annotated[float, typer.Option(help="Largest share of judgements from one annotator.")] = 1.0,
    machines: Annotated[float, typer.Option(help="What a machine's judgement weighs against a person's.")] = 1.0,
    min_weight: Annotated[float, typer.Option(help="Leave out pairs of less weight.")] = 0.0,
    min_pairs: Annotated[int, typer.Option(help="Fewest pairs and single answers each split must have.")] = 1,
    max_pairs: Annotated[int, typer.Option(help="Most pairs the version may have; 0 for no limit.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be in it; write nothing.")] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Make an immutable dataset version of what was judged so far."""
    try:
        rule = FreezeRule(
            sources=tuple(source or ()),
            slices=_slices(slice_ or []),
            without=tuple(without or ()),
            reliability=reliability,
            annotator_cap=annotator_cap,
            machines=machines,
            min_weight=min_weight,
            min_pairs=min_pairs,
            max_pairs=max_pairs,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    ws = Workspace(workspace)
    if dry_run:
        report = ws.preview_freeze(rule)
        show.result(report, as_json=as_json, render=lambda out: _render_freeze(out, "would be frozen", report))
        return
    with stage_bars() as progress:
        frozen = ws.freeze(name=name, rule=rule, progress=progress)
    digest = frozen.version.digest
    called = [e.name for e in ws.version_entries() if e.digest == digest][-1]
    show.result(
        {"name": called, "digest": digest, "path": frozen.version.path, "report": frozen.report},
        as_json=as_json,
        render=lambda out: _render_freeze(out, f"version {called} ({show.short(digest)})", frozen.report),
    )


def _slices(given: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not separator:
            raise typer.BadParameter(f"--slice {one}: expected NAME=VALUE")
        found[name] = (*found.get(name, ()), value)
    return found


def _render_freeze(out: Console, title: str, report: FreezeReport) -> None:
    rows = [("comparisons read", report.comparisons), ("judgements read", report.judgements)]
    rows += [(f"  left out: {reason}", n) for reason, n in report.judgements_left_out.items() if n]
    rows += [("pairs formed", report.pairs_formed), ("  from several comparisons", report.pairs_merged)]
    rows += [("  contested, decided by majority", report.pairs_contested)]
    rows += [(f"  left out: {reason}", n) for reason, n in report.pairs_left_out.items()]
    rows += [(f"pairs to {split}", n) for split, n in report.counts.items()]
    rows += [(f"single answers to {split}", n) for split, n in report.singles.items() if any(report.singles.values())]
    rows += [(f"  left out: {reason}", n) for reason, n in report.singles_left_out.items()]
    rows += [("prompt clusters", report.clusters), ("pairs in the largest", report.largest_cluster)]
    out.print(show.table(title, ("", "#count"), rows))


@app.command()
def simulate(
    guideline: Annotated[str, typer.Argument(help=f"What the annotator goes by: {', '.join(GUIDELINES)}.")],
    *,
    annotator: Annotated[str, typer.Option(help="Handle; simulated:GUIDELINE where left out.")] = "",
    error_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of verdicts turned round.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Which verdicts are turned round.")] = 0,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Judge open comparisons as a simulated annotator who follows a stated guideline."""
    report = Workspace(workspace).simulate(guideline, annotator=annotator, error_rate=error_rate, seed=seed)
    rows = list(report._asdict().items())
    show.result(
        report, as_json=as_json, render=lambda out: out.print(show.table(guideline, ("", "#comparisons"), rows))
    )
