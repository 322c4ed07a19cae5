"""Why a version fell: asked for with one click, done by a runner, shown beside the rows with what to do about it. For leads."""

import json
from typing import NamedTuple
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from preference_data.requests import Requests
from preference_data.store import Store
from ui.shown import Lead, form_of, page, part
from workbench.config import RoundSettings
from workbench.drift.ledger import Ledger
from workbench.rebasing import settings_of
from workbench.rounds.journal import RoundRecord
from workbench.views.asked import runner_alive
from workbench.views.explained import Explained, explained
from workbench.views.fresh import objective_of
from workbench.views.inspection import Inspection
from workbench.views.rows import Wanted

SHOWN = 20
"""Training pairs shown; all of them are in the file."""


class Act(NamedTuple):
    """Something to do about a fall: a round to plan, its form filled in."""

    label: str
    why: str
    address: str


class Causes:
    """What is known of why versions fell."""

    def __init__(self, inspection: Inspection, store: Store) -> None:
        """Read a workspace, and file requests in its store."""
        self.inspection, self.requests = inspection, Requests(store.engine)

    def of(self, policy: str) -> RoundRecord | None:
        """The round that made a policy, if one of this workspace did."""
        made = self.inspection.places.registry.get(policy).round
        return next((r for r in self.inspection.rounds() if r.digest == made), None)

    def found(self, policy: str, version: str, within: str) -> Explained | None:
        """What was found out about the fall of a version, where somebody asked."""
        record = self.of(policy)
        return explained(self.inspection.places, record.digest, version, within) if record else None

    def ask(self, policy: str, version: str, within: str, *, by: str) -> None:
        """Ask the runner; once for each fall, and again where it failed."""
        payload = {"policy": policy, "version": version, "within": within}
        failed = sum(r.kind == "explain" and r.payload == payload and r.state == "failed" for r in self.requests.all())
        self.requests.file(f"explain-{policy[:16]}-{version[:16]}-{within}-{failed}", "explain", payload, by=by)

    def shown(self, wanted: Wanted, parent: tuple[str, str] | None) -> str:
        """The part beside the rows of a version; nothing for other rows.

        Args:
            wanted: the rows.
            parent: the parent of their policy, and where its comparison is, if the rows are compared with another.
        """
        kind, _, version = wanted.suite.partition("/")
        if kind != "retention":
            return ""
        record = self.of(wanted.policy)
        if record is None:
            return ""
        found = self.found(wanted.policy, version, wanted.within)
        payload = {"policy": wanted.policy, "version": version, "within": wanted.within}
        open_ones = [r for r in self.requests.all() if r.kind == "explain" and r.payload == payload]
        return part("cause_parts.html", "why")(
            found, payload, open_ones[-1] if open_ones else None,
            self.acts(record, version) if found or objective_of(record) else (),
            {"alive": runner_alive(self.inspection.places.root), "shown": SHOWN, "query": urlencode(payload),
             "fresh": objective_of(record), "parent": parent},
        )  # fmt: skip

    def acts(self, record: RoundRecord, version: str) -> tuple[Act, ...]:
        """Rounds that would do it otherwise, for the form of the rounds page."""
        settings = settings_of(record.plan)
        share, acts = settings.replay.share, list[Act]()
        if share != "all":
            more = 2 * share if share else 0.25
            acts.append(Act("Replay more", f"the same round again with replay.share = {more:g}",
                            _again(record, f"replay.share = {more:g}")))  # fmt: skip
        acts.append(_firmer(record, settings))
        if best := self._knew_it_best(record, version):
            half = f'[{{ policy = "{best}", weight = 0.5 }}, {{ policy = "base", weight = 0.5 }}]'
            anchors = f'anchors = {half}\nschedule.kind = "given"'
            acts.append(
                Act(f"Raise the anchor {best}", "the same round held by the policy that knew this version best",
                    _again(record, anchors))
            )  # fmt: skip
            acts.append(
                Act(
                    f"Branch from {best}",
                    "a round on the newest version from that policy",
                    f"/rounds?{urlencode({'parent': best})}",
                )
            )
        return tuple(acts)

    def _knew_it_best(self, record: RoundRecord, version: str) -> str:
        """The earlier policy of the lineage with the highest accuracy on the version; empty for the base, or none."""
        lineage = self.inspection.places.registry.lineage(str(record.child))[1:-1]
        condition = self.inspection.condition(lineage) if lineage else None
        ledger = Ledger(self.inspection.places.engine)
        scores: dict[str, float] = {}
        for policy in lineage:
            rows = ledger.items(policy.digest, f"retention/{version}", "margin", condition or "", brief=True)
            if rows:
                scores[policy.name] = sum(row.value > 0 for row in rows) / len(rows)
        return max(scores, key=lambda name: scores[name], default="")


def _firmer(record: RoundRecord, settings: RoundSettings) -> Act:
    """The same round, held more by its anchors."""
    online, label = settings.online, "Hold it more firmly"
    if not online.on:
        why, change = (
            "twice the beta, the weight of all its anchors",
            f"objective.beta = {2 * settings.objective.beta:g}",
        )
    elif online.kl_target:
        why, change = "half the KL it is steered to", f"online.kl_target = {online.kl_target / 2:g}"
    else:
        why = "twice the beta, the weight of all its anchors, at new prompts and at replayed ones"
        change = f"online.beta = {2 * online.beta:g}\nonline.beta_old = {2 * (online.beta_old or online.beta):g}"
    return Act(label, f"the same round again with {why}", _again(record, change))


def _again(record: RoundRecord, change: str) -> str:
    """The form of the rounds page with a round and a change of it, as TOML."""
    return f"/rounds?{urlencode({'again': record.digest[:16], 'change': change})}"


def add_causes(app: FastAPI, causes: Causes) -> None:
    """Add what the part beside the rows asks for."""

    @app.post("/drift/explain")
    async def ask(request: Request, person: Lead) -> HTMLResponse:
        form = await form_of(request)
        inspection = causes.inspection
        if not _known(inspection, form.get("policy", "")) or form.get("version") not in inspection.names():
            raise HTTPException(404, "no such policy or version; open a cell of the drift page")
        record = causes.of(form["policy"])
        if record and objective_of(record):
            raise HTTPException(409, "its round learned from its own answers, so no training pair lies behind a fall")
        causes.ask(form["policy"], form["version"], form.get("within", ""), by=person.handle)
        return page(
            "told.html",
            told="The runner looks for the training pairs behind this fall; open the rows again to see them.",
        )

    @app.get("/drift/causes.jsonl")
    def file(_: Lead, policy: str, version: str, within: str = "") -> Response:
        found = causes.found(policy, version, within) if _known(causes.inspection, policy) else None
        if found is None:
            raise HTTPException(404, "not looked for yet; ask for it beside the rows")
        lines = (
            json.dumps({"share": c.share, "key": c.pair.key, "prompt": c.pair.prompt.text, "chosen": c.pair.chosen,
                        "rejected": c.pair.rejected, "judgements": list(c.pair.judgements),
                        "slices": dict(c.pair.slices)}, ensure_ascii=False) + "\n"
            for c in found.causes
        )  # fmt: skip
        headers = {"content-disposition": 'attachment; filename="causes.jsonl"'}
        return Response("".join(lines), media_type="application/x-ndjson", headers=headers)


def _known(inspection: Inspection, policy: str) -> bool:
    return policy in {record.digest for record in inspection.places.registry.policies()}
