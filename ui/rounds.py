"""The rounds page: plan, start, watch, stop and go on with rounds; promote, roll back, set thresholds. For leads.

The page writes requests and the stop flag; a runner does what they ask for.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from preference_data.errors import PreferenceDataError
from preference_data.requests import Kind, Requests
from preference_data.store import Store
from ui.chores import ChoreError, Chores
from ui.shown import Lead, form_of, page, part
from workbench.config import METHODS, GateSettings, RoundSettings, settings_from, values_of
from workbench.config.written import as_toml
from workbench.drift.uncertainty import Estimate
from workbench.errors import ConfigError, PolicyError, WorkbenchError
from workbench.rebasing import settings_of, to_copy, unnamed_suites
from workbench.rejecting import next_champion, note_rejection, rejections
from workbench.reports.charts import Line, Point, lines
from workbench.reports.story import criteria, gate_heading
from workbench.rounds.journal import RoundRecord
from workbench.views.asked import runner_alive, thresholds
from workbench.views.fresh import fresh_of, objective_of, said_of
from workbench.views.inspection import Inspection
from workbench.views.singles import of_answers, said_of_singles, singles_of
from workbench.views.taught import SHORTEST, uses_of
from workbench.views.watched import Watched, state_of, watched

SHOWN = 200
"""Rounds of the list, newest first."""
AT_ONCE = 50
"""Pairs of a page."""
LAST = 10
"""Requests, and moves of the champion, shown."""
FIELDS = {"objective.beta": float, "training.learning_rate": float, "training.epochs": int, "replay.share": float}
"""Settings with a field of their own."""
LONGEST_REASON = 2000


class Rounds:
    """What the rounds page reads and asks for."""

    def __init__(self, inspection: Inspection, store: Store, chores: Chores) -> None:
        """Read a workspace, and file requests in its store."""
        self.inspection, self.requests, self.chores = inspection, Requests(store.engine), chores

    def one(self, digest: str) -> RoundRecord:
        """A round by its digest or the beginning of it.

        Raises:
            HTTPException: there is none, or several.
        """
        found = [r for r in self.inspection.rounds() if r.digest.startswith(digest)]
        if len(found) != 1:
            raise HTTPException(404, f"round {digest[:16]!r}: {len(found)} rounds begin so; choose one of the list")
        return found[0]

    def filled_in(self, query: Mapping[str, str]) -> dict[str, str]:
        """The form as an address fills it in: its fields, or a round to plan again with a change of it.

        Raises:
            HTTPException: there is no such round, or the change makes no sense.
        """
        if "again" not in query:
            return dict(query)
        record = self.one(query["again"])
        values = settings_of(record.plan).model_dump(mode="json", exclude_unset=True)
        try:
            for name, given in values_of(query.get("change", "")[:LONGEST_REASON], where="change").items():
                both = isinstance(given, dict) and isinstance(values.get(name), dict)
                values[name] = {**values[name], **given} if both else given
            return {"more": to_copy(record.plan, settings_from(values, RoundSettings, where="change"))}
        except ConfigError as error:
            raise HTTPException(409, str(error)) from error

    def unnamed(self, query: Mapping[str, str]) -> list[str]:
        """Suites of the round to plan again that the filled-in form lacks."""
        return unnamed_suites(json.loads(self.one(query["again"]).plan)) if "again" in query else []

    def listed(self) -> list[dict[str, Any]]:
        """All rounds, newest first."""
        names, journal = self.inspection.names(), self.inspection.places.journal
        gone = rejections(self.inspection.places)
        found: list[dict[str, Any]] = []
        for record in list(reversed(self.inspection.rounds()))[:SHOWN]:
            plan = json.loads(record.plan)
            gain = next((c.value for c in criteria(record.verdict, names) if c.name == "gain"), "")
            state, _ = state_of(journal, record)
            state = "rejected" if record.child in gone else state
            version = names.get(plan["version"], plan["version"][:12])
            found.append({"record": record, "state": state,
                          "version": f"own answers to prompts of {version}" if objective_of(record) else version,
                          "parent": names.get(plan["parent"], plan["parent"][:12]), "gain": gain,
                          "child": names.get(record.child or "", "")})  # fmt: skip
        return found

    def file(self, kind: Kind, payload: Mapping[str, Any], form: Mapping[str, str], by: str) -> None:
        """Ask the runner for something; the same form sent twice asks once."""
        key = f"page-{form.get('once') or secrets.token_hex(8)}"
        self.requests.file(key, kind, payload, by=by)

    def act(self, record: RoundRecord, what: str, form: Mapping[str, str], by: str) -> None:
        """Stop a round, go on with it, promote or reject its policy, or go back to the champion before.

        Raises:
            HTTPException: a reason is missing, or nothing such can be done.
        """
        reason = form.get("reason", "").strip()[:LONGEST_REASON]
        if what in {"promote", "reject", "rollback"} and not reason:
            raise HTTPException(409, f"{what}: a reason is missing; say why, it goes into the audit log")
        match what:
            case "stop":
                self.inspection.places.journal.request_stop(record.digest, by=by)
            case "again":
                self.file("round", {"round": record.digest}, form, by)
            case "promote" if record.child:
                self.file("promote", {"policy": record.child, "reason": reason}, form, by)
            case "reject" if record.child:
                self._reject(record.child, form, reason, by)
            case "rollback" if record.child:
                self._give_way(record.child, form, reason, by)
            case _:
                raise HTTPException(
                    404, f"{what!r}: a round can be stopped, gone on with, promoted, rejected or rolled back"
                )

    def _reject(self, policy: str, form: Mapping[str, str], reason: str, by: str) -> None:
        """Write the rejection down at once; a champion gives way when the runner comes to it."""
        if _champion(self.inspection) == policy:
            self._give_way(policy, form, reason, by)
        note_rejection(self.inspection.places, policy, reason=reason, by=by)

    def _give_way(self, policy: str, form: Mapping[str, str], reason: str, by: str) -> None:
        """Ask the runner to go back from this champion, and from no other, to the last one before it that nobody rejected."""
        champion = _champion(self.inspection)
        if champion != policy:
            raise HTTPException(
                409, f"the champion is {self.inspection.names()[champion]} by now; look at it before you go back"
            )
        try:
            next_champion(self.inspection.places)
        except PolicyError as error:
            raise HTTPException(409, str(error)) from error
        self.file("rollback", {"reason": reason, "from": policy}, form, by)

    def shown(
        self,
        *,
        error: str = "",
        told: Sequence[tuple[str, str]] = (),
        given: Mapping[str, str] | None = None,
        unnamed: Sequence[str] = (),
    ) -> HTMLResponse:
        """The page with the list; `unnamed` are suites that the form as filled in lacks."""
        places = self.inspection.places
        state = 409 if error else 200
        answer = page(
            "rounds.html", rounds=self.listed(), versions=list(reversed(places.versions.entries())), methods=METHODS,
            policies=[r.name for r in reversed(places.registry.policies())], error=error, told=told, given=defaultdict(str, given or {}),
            default=RoundSettings(), unnamed=unnamed, once=secrets.token_hex(8), alive=runner_alive(places.root),
            requests=list(reversed(self.requests.all()))[:LAST], thresholds=thresholds(self.requests),
            moves=list(reversed(self.inspection.moves())), last=LAST, names=self.inspection.names(),
        )  # fmt: skip
        answer.status_code = state
        return answer


def add_rounds(app: FastAPI, inspection: Inspection, store: Store, chores: Chores) -> None:
    """Add the rounds pages and what their forms do."""
    rounds = Rounds(inspection, store, chores)

    @app.get("/rounds")
    def show(request: Request, _: Lead) -> HTMLResponse:
        return rounds.shown(given=rounds.filled_in(request.query_params), unnamed=rounds.unnamed(request.query_params))

    @app.get("/rounds/{digest}")
    def show_one(digest: str, _: Lead) -> HTMLResponse:
        record = rounds.one(digest)
        seen = watched(inspection, record)
        return page(
            "round.html", seen=seen, parts=_parts(inspection, seen), criteria=criteria(record.verdict, inspection.names()),
            plan=to_copy(record.plan), once=secrets.token_hex(8), alive=runner_alive(inspection.places.root),
            child=inspection.names().get(record.child or "", ""), champion=_champion(inspection) == record.child,
            rejection=rejections(inspection.places).get(record.child or ""), gate=gate_heading(record), fresh=objective_of(record),
        )  # fmt: skip

    @app.get("/rounds/{digest}/pairs")
    def pairs(digest: str, _: Lead, start: int = 0) -> HTMLResponse:
        record = rounds.one(digest)
        version = inspection.places.versions.find(json.loads(record.plan)["version"])
        taught = [*version.pairs("train"), *(version.singles("train") if of_answers(record) else ())]
        return page(
            "pairs.html",
            record=record,
            fresh=objective_of(record),
            pairs=taught[start : start + AT_ONCE],
            start=start,
            step=AT_ONCE,
            total=len(taught),
        )

    @app.get("/judgements/{key}")
    def judgement(key: str, _: Lead) -> HTMLResponse:
        uses = uses_of(inspection.places, key)
        fresh = {record.digest for use in uses for record in use.rounds if objective_of(record)}
        return page("judgement.html", key=key, uses=uses, shortest=SHORTEST, fresh=fresh)

    @app.get("/rounds/{digest}/state")
    def state(digest: str, _: Lead) -> JSONResponse:
        seen = watched(inspection, rounds.one(digest))
        return JSONResponse({"state": seen.state, "parts": _parts(inspection, seen)})

    _add_actions(app, rounds)


def _add_actions(app: FastAPI, rounds: Rounds) -> None:
    """Add what forms ask for; all of it is written down with who asked and why."""

    @app.post("/rounds")
    async def start(request: Request, person: Lead) -> Response:
        form = await form_of(request)
        try:
            values = _settings(form)
            settings = settings_from(values, RoundSettings, where="the form")
            if form.get("do") == "cost":
                told = await to_thread.run_sync(rounds.chores.cost, as_toml(settings))
                return rounds.shown(told=told, given=form)
            rounds.file("round", {"settings": values}, form, person.handle)
        except (WorkbenchError, PreferenceDataError, ChoreError) as error:
            return rounds.shown(error=str(error), given=form)
        return RedirectResponse("/rounds", status_code=303)

    @app.post("/rounds/{digest}/{what}")
    async def act(digest: str, what: str, request: Request, person: Lead) -> Response:
        form, record = await form_of(request), rounds.one(digest)
        rounds.act(record, what, form, person.handle)
        return RedirectResponse(f"/rounds/{record.digest}", status_code=303)

    @app.post("/thresholds")
    async def set_thresholds(request: Request, person: Lead) -> Response:
        form = await form_of(request)
        try:
            values: dict[str, object] = {
                name: float(form[name]) for name in GateSettings.model_fields if form.get(name)
            }
            gate = settings_from(values, GateSettings, where="thresholds")
            payload = {"gate": gate.model_dump(), "reason": form.get("reason", "")[:LONGEST_REASON]}
            rounds.file("threshold", payload, form, person.handle)
        except (WorkbenchError, PreferenceDataError, ValueError) as error:
            return rounds.shown(error=str(error))
        return RedirectResponse("/rounds", status_code=303)


def _settings(form: Mapping[str, str]) -> dict[str, Any]:
    """What a form states, with what stands in its text over it.

    Raises:
        ConfigError: the text is no TOML.
    """
    values: dict[str, Any] = {name: form[name] for name in ("version", "parent", "method") if form.get(name)}
    for name, kind in FIELDS.items():
        if form.get(name):
            section, _, key = name.partition(".")
            try:
                values.setdefault(section, {})[key] = kind(form[name])
            except ValueError:
                values.setdefault(section, {})[key] = form[name]  # the settings say what was expected
    if form.get("update"):
        values["update"] = True
    for section, given in values_of(form.get("more", ""), where="further settings").items():
        both = isinstance(given, dict) and isinstance(values.get(section), dict)
        values[section] = {**values[section], **given} if both else given
    return values


def _parts(inspection: Inspection, seen: Watched) -> dict[str, str]:
    """What changes while a round runs, as HTML by name."""
    return {
        "bars": part("round_parts.html", "bars")(seen),
        "fresh": _earned(inspection, seen.record),
        "singles": _told_apart(inspection, seen.record),
        "loss": "" if objective_of(seen.record) else _curve(seen, "loss", "Loss", "nats"),
        "accuracy": _curve(
            seen, "accuracy", f"{'Answers' if of_answers(seen.record) else 'Pairs'} of the batch it gets right", "share"
        ),
        "kl": _curve(seen, "kl_parent", "Estimated KL to the parent, on training answers", "nats"),
        "reward": _curve(seen, "reward", "Reward of its own answers", "reward, a step's mean"),
        "guard": _curve(seen, "guard", "What the guard says of them", "a step's mean"),
        "anchors": _curve(seen, "kl_per_token", "KL to the anchors, on its own answers", "nats per token")
        or _curve(seen, "kl", "KL to the anchors, on its own answers", "nats per answer"),
        "base": _curve(seen, "kl_base", "KL to the base, on its own answers", "nats per token"),
        "length": _curve(seen, "answer_tokens", "Length of its own answers", "tokens, a step's mean"),
        "distinct": _curve(seen, "distinct_answers", "Its own answers to a prompt that differ", "share"),
        "cut": _curve(seen, "truncated", "Its own answers cut at the limit", "share"),
        "apart": _curve(seen, "apart", "Log-prob where written and where learned from", "nats per token apart"),
        "entropy": "".join(
            _curve(seen, f"entropy_{side}", f"Entropy of what predicts a token of {side} answers", "nats per token")
            for side in ("chosen", "rejected")
        ),
        "top1": "".join(
            _curve(seen, f"top1_{side}", f"Tokens of {side} answers that are the likeliest", "share")
            for side in ("chosen", "rejected")
        ),
        "speed": _curve(seen, "pairs_per_s", "Speed", "pairs per second")
        or _curve(seen, "prompts_per_s", "Speed", "prompts per second"),
        "log": part("round_parts.html", "log")(seen),
    }


def _earned(inspection: Inspection, record: RoundRecord) -> str:
    """What a round on fresh answers earned, and where its answers are; nothing of one on pairs."""
    fresh = fresh_of(inspection.places, record)
    if fresh is None:
        return ""
    child = (record.child or "")[:16]
    cell = {"policy": child, "cell": f"{child} length samples/{json.loads(record.plan)['version']}"}
    samples = f"/drift?{urlencode(cell)}#rows" if child else ""
    return part("round_parts.html", "fresh")(said_of(fresh, inspection.names()), samples)


def _told_apart(inspection: Inspection, record: RoundRecord) -> str:
    """How well its policy tells good single answers from bad ones; nothing where no version has any."""
    found = singles_of(inspection.places, record)
    return part("round_parts.html", "singles")(said_of_singles(found, inspection.names())) if found else ""


def _curve(seen: Watched, name: str, title: str, unit: str) -> str:
    points = tuple(
        Point(step, Estimate(v, v, v, 1, "of one batch"), f"step {step}")
        for step, facts in seen.curve
        if (v := facts.get(name)) is not None
    )
    drawn = lines([Line(title, points)], title=title, unit=unit, xs="optimizer step") if len(points) > 1 else None
    return f"<h3>{title}</h3>{drawn}" if drawn else ""


def _champion(inspection: Inspection) -> str:
    return inspection.places.registry.resolve("champion").digest
