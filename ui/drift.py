"""The drift page: a lineage at a glance, every number open to its rows, for leads."""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from subprocess import TimeoutExpired
from threading import Lock
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from preference_data.errors import PreferenceDataError
from ui.causes import Causes
from ui.chores import ChoreError, Chores
from ui.opened import address, cell_link, opened, wanted_rows
from ui.reward_part import has_reward_models, rewards_part
from ui.shown import Lead, form_of, page, part
from workbench.drift.uncertainty import said
from workbench.errors import PolicyError, WorkbenchError
from workbench.reports.charts import Line, Point, lines
from workbench.reports.document import html_report, plan_text
from workbench.reports.graph import graph
from workbench.reports.story import Story, story
from workbench.reports.turned import QUARTERS, TURNED, Turns, turns_of
from workbench.views.averages import averages_of
from workbench.views.inspection import Inspection, Overview
from workbench.views.numbers import numbers_turned
from workbench.views.people import people_of
from workbench.views.reading import Reader
from workbench.views.records import NOT_MEASURED, VersionView
from workbench.views.rows import find_rows
from workbench.views.watched import state_of

_LOG = logging.getLogger(__name__)
ASKED_AGAIN = 50
"""Comparisons that one click asks again."""
REMEMBERED = 4
"""Views whose parts are kept; a person looks at few at a time."""
LATE_PARTS = 3
LEVELS = ("Last", "AP")


class Drift:
    """Makes the page's parts, and keeps them until something was measured, promoted or begun."""

    def __init__(self, inspection: Inspection) -> None:
        """Read a workspace."""
        self.inspection = inspection
        self._kept: dict[tuple[str, str, str], tuple[object, Story, dict[str, str]]] = {}
        self._late: dict[tuple[str, str], tuple[object, str]] = {}
        self._lock, self._late_lock = Lock(), Lock()

    def prepare(self) -> None:
        """Make ready what is looked at first; whoever looks meanwhile waits for it."""
        try:
            self.view("", "", "")
        except (WorkbenchError, PreferenceDataError, HTTPException):
            _LOG.info("the drift page is not prepared; whoever opens it is told why")

    def view(self, policy: str, within: str, against: str) -> tuple[Story, dict[str, str]]:
        """What is told of a policy, and the parts of the page as HTML by name.

        Raises:
            HTTPException: nothing, or several policies, answer to the name.
        """
        stamp, key = self.inspection.stamp(), (self._digest(policy), within, against)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != stamp:
                told = self._told(key[0], within, against)
                kept = (stamp, told, dict(self._parts(told, against)))
                self._kept[key] = kept
                while len(self._kept) > REMEMBERED:
                    del self._kept[next(iter(self._kept))]
            return kept[1], kept[2]

    def late(self, policy: str, name: str, make: Callable[[Overview], str]) -> str:
        """A part about a policy that takes longer, made when it is first asked for."""
        told, _ = self.view(policy, "", "")
        return self.once((told.view.policies[-1].digest, name), lambda: make(told.view), on=_taught(told.view))

    def once(self, key: tuple[str, str], make: Callable[[], str], *, on: object = None) -> str:
        """A part made when it is first asked for, and again when what it depends on has changed: the workspace, if not told."""
        stamp = self.inspection.stamp() if on is None else on
        with self._late_lock:
            if key not in self._late or self._late[key][0] != stamp:
                self._late[key] = (stamp, make())
                while len(self._late) > LATE_PARTS * REMEMBERED:
                    del self._late[next(iter(self._late))]
            return self._late[key][1]

    def _digest(self, policy: str) -> str:
        try:
            return self.inspection.places.registry.resolve(policy).digest if policy else self.inspection.newest()
        except PolicyError as error:
            raise HTTPException(404, str(error)) from error

    def _told(self, policy: str, within: str, against: str) -> Story:
        view = self.inspection.overview(policy, within=within)
        return story(self.inspection, view, lambda p, name, suite: cell_link(view, (p, name, suite), against))

    def _parts(self, told: Story, against: str) -> Iterator[tuple[str, str]]:
        view, branches = told.view, self.inspection.branches()
        state = next((each.state for each in branches if each.policy.digest == view.policies[-1].digest), "")
        yield "head", part("drift_parts.html", "head")(told, state)
        yield "said", part("drift_parts.html", "said")(told)
        yield (
            "lineage",
            graph(
                branches,
                view.policies[-1].digest,
                lambda p: address(policy=p[:16], within=view.slice, against=against),
                self.inspection.childless(),
            ),
        )
        yield "matrix", part("parts.html", "matrix")(told.grid)
        for one in told.figures:
            yield one.key, part("parts.html", "figure")(one)
        table, many = part("parts.html", "turned"), len(view.trained)
        yield "turned", table(told.turned, many, "the parent", TURNED, QUARTERS) if told.turned else ""
        if against:
            yield "against", table(tuple(self._against(view, against)), many, "the pinned baseline", TURNED, QUARTERS)
        yield "gate", part("drift_parts.html", "gate")(told) if told.criteria else ""
        yield "plan", part("drift_parts.html", "plan")(plan_text(told), told.record)

    def _against(self, view: Overview, against: str) -> Iterator[Turns]:
        """What turned from a policy that was pinned to the newest, version by version."""
        base = self.inspection.places.registry.resolve(against)
        read = Reader(self.inspection.places.ledger, view.condition)
        if view.slice:
            read = read.within(view.slice)
        for version in view.trained:
            yield _turned(view, (read, base.digest), version, against)


def _turned(view: Overview, before: tuple[Reader, str], version: VersionView, against: str) -> Turns:
    """What turned of one version from a policy to the newest."""
    (read, base), newest, suite = before, view.policies[-1].digest, f"retention/{version.digest}"
    was, now = (read.series(policy, suite, "margin") for policy in (base, newest))
    found = dict(numbers_turned(was, now)) if now else {}
    return turns_of(version.name, lambda name: found.get(name, NOT_MEASURED),
                    lambda name: cell_link(view, (newest, name, suite), against))  # fmt: skip


def _taught(view: Overview) -> int:
    """Another number wherever policies, versions or what is known of them are others; what a running round measures is not."""
    known = frozenset(each for each in view.numbers.items() if each[0][1] == "accuracy")
    return hash((view.versions, view.condition, tuple(p.digest for p in view.policies), known))


def add_drift(app: FastAPI, inspection: Inspection, causes: Causes) -> Callable[[], None]:
    """Add the drift page and what it asks for.

    Returns:
        Makes ready what is looked at first; for a thread beside the server.
    """
    drift = Drift(inspection)

    @app.get("/drift")
    def show(request: Request, _lead: Lead) -> HTMLResponse:
        asked = _asked(request)
        told, parts = drift.view(*_place(asked))
        baseline = inspection.places.registry.resolve(asked["against"]) if asked["against"] else None
        return page(
            "drift.html", told=told, parts=parts, asked=asked, known={"parts": _hashes(parts), "late": _late(inspection)}, branches=inspection.branches(),
            rows=opened(inspection, causes, told, asked) if asked["cell"] else "",
            reward_models=has_reward_models(inspection.places), baseline=baseline,
        )  # fmt: skip

    @app.get("/drift/state")
    def state(request: Request, _lead: Lead) -> JSONResponse:
        asked = _asked(request)
        _, parts = drift.view(*_place(asked))
        open_rounds = [r for r in inspection.rounds() if r.state in {"planned", "running"}]
        running = any(state_of(inspection.places.journal, each)[0] == "running" for each in open_rounds)
        return JSONResponse(
            {"parts": _hashes(parts), "late": _late(inspection), "running": running, "newest": inspection.newest()}
        )

    @app.get("/drift/part/{name}")
    def one(name: str, request: Request, _lead: Lead) -> HTMLResponse:
        asked = _asked(request)
        _, parts = drift.view(*_place(asked))
        if name not in parts:
            raise HTTPException(404, f"part {name!r}: there are {', '.join(parts)}")
        return HTMLResponse(parts[name])

    @app.get("/drift/rows")
    def rows(request: Request, _lead: Lead) -> HTMLResponse:
        asked = _asked(request)
        told, _parts = drift.view(*_place(asked))
        return HTMLResponse(opened(inspection, causes, told, asked))

    _add_files(app, inspection, drift)
    _add_late(app, inspection, drift)
    return drift.prepare


def _add_files(app: FastAPI, inspection: Inspection, drift: Drift) -> None:
    """Add what can be taken away: rows, numbers, the report."""

    @app.get("/drift/rows.{form}")
    def rows_file(form: str, request: Request, _: Lead) -> Response:
        asked = _asked(request)
        told, _parts = drift.view(*_place(asked))
        wanted = wanted_rows(inspection, told.view, asked)
        found = find_rows(inspection.places, wanted, count=1_000_000)
        given = [{**row._asdict(), **row.texts, "slices": dict(row.slices), "texts": None} for row in found.rows]
        return _file(form, [{k: v for k, v in row.items() if k != "texts"} for row in given], "rows")

    @app.get("/drift/numbers.{form}")
    def numbers(form: str, request: Request, _: Lead, figure: str = Query("")) -> Response:
        asked = _asked(request)
        told, _parts = drift.view(*_place(asked))
        view = told.view
        one = next((f for f in told.figures if f.key == figure), None)
        keys = one.numbers if one else tuple(view.numbers)
        rows = [
            {"policy": told.names.get(p, p), "name": name, "suite": suite, **view.number(p, name, suite)._asdict()}
            for p, name, suite in keys
        ]
        return _file(form, rows, figure or "numbers")

    @app.get("/drift/report.html")
    def report(request: Request, _: Lead) -> Response:
        policy = _asked(request)["policy"] or inspection.newest()
        headers = {"content-disposition": 'attachment; filename="report.html"'}
        return HTMLResponse(html_report(inspection.places, policy), headers=headers)


def _add_late(app: FastAPI, inspection: Inspection, drift: Drift) -> None:
    """Add parts that the page fetches once it is shown."""

    @app.get("/drift/averages")
    def averages(request: Request, _: Lead) -> HTMLResponse:
        def make(view: Overview) -> str:
            found = averages_of(view, inspection.places.ledger)
            rows = [(a.name, said(a.value, signed=a.name not in LEVELS), a.convention) for a in found]
            return part("drift_parts.html", "averages")(rows)

        return HTMLResponse(drift.late(_asked(request)["policy"], "averages", make))

    @app.get("/drift/people")
    def people(request: Request, _: Lead) -> HTMLResponse:
        def make(view: Overview) -> str:
            found = people_of(inspection.places, [(v.name, v.digest) for v in view.trained])
            points = tuple(Point(k, one.agreement, one.version) for k, one in enumerate(found, start=1))
            drawn = lines(
                [Line("agreement", points)], title="Agreement of people", unit="share that says the same", xs="version"
            )
            pairs = {p.version for p in view.policies if not p.online}
            fresh = [v.name for v in view.trained if v.digest not in pairs]
            return part("drift_parts.html", "people")(found, drawn, fresh)

        return HTMLResponse(drift.late(_asked(request)["policy"], "people", make))

    @app.get("/drift/rewards")
    def rewards(_: Lead) -> HTMLResponse:
        return HTMLResponse(drift.once(("", "rewards"), lambda: rewards_part(inspection.places)))


def add_asking(app: FastAPI, inspection: Inspection, chores: Chores) -> None:
    """Add the one click that has people judge what was forgotten once more."""

    @app.post("/drift/ask")
    async def again(request: Request, _: Lead) -> HTMLResponse:
        form = await form_of(request)
        entry = next((e for e in inspection.places.versions.entries() if e.digest == form.get("version")), None)
        if entry is None:
            raise HTTPException(404, "no such version; open a cell of the page")
        sources = inspection.places.versions.find(entry.digest).manifest.slices.get("source", {})
        try:
            fall = {"version": entry.digest, "policy": form.get("policy", "champion"), "within": form.get("within", "")}
            told = await to_thread.run_sync(chores.ask_again, f"again-{entry.name}", list(sources), ASKED_AGAIN, fall)
        except (ChoreError, TimeoutExpired) as error:
            raise HTTPException(409, f"nothing was asked: {error}") from error
        return page("told.html", told=told)


ASKED = ("policy", "within", "against", "cell", "turn", "start")


def _asked(request: Request) -> dict[str, str]:
    """What the address says: the newest policy, a slice, the pinned baseline, an open cell, its rows."""
    return {name: request.query_params.get(name, "")[:500] for name in ASKED}


def _place(asked: Mapping[str, str]) -> tuple[str, str, str]:
    """Which view an address asks for."""
    return asked["policy"], asked["within"], asked["against"]


def _late(inspection: Inspection) -> str:
    """Changes whenever a part that is fetched once the page is shown may have changed."""
    return sha256(repr(inspection.stamp()).encode()).hexdigest()[:12]


def _hashes(parts: Mapping[str, str]) -> dict[str, str]:
    return {name: sha256(text.encode()).hexdigest()[:12] for name, text in parts.items()}


def _file(form: str, rows: list[dict[str, Any]], name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.{form}"'}
    if form == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)
    if form != "csv":
        raise HTTPException(404, f"{form!r}: rows come as csv or jsonl")
    written = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(written, columns)
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
    return Response(written.getvalue(), media_type="text/csv", headers=headers)


def _cell(value: Any) -> Any:
    """A value no spreadsheet takes for a formula."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
