"""The leads' page: how a project goes, who judges how, where people differ, the guideline, files and versions.

Gradio draws it, on the server of the judging page. It asks the store when a tab is opened or something was done, never
in between, and does what takes long in a process of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request

from preference_data.accounts import Account, Accounts, State, Wanted
from preference_data.errors import PreferenceDataError, Refused
from preference_data.leading import Leading
from preference_data.projects import Projects
from preference_data.queue import Queue
from preference_data.records import Pairwise, Verdict
from preference_data.store import Store
from preference_data.told import told
from ui.chores import REFUSED, Chores, fresh_folder
from ui.lead_words import WORDS, t
from ui.shown import LEADS
from ui.tables import AGREEMENT, DISPUTES, PEOPLE, agreement_rows, dispute_rows, minutes_csv, people_rows, progress_text

KEEP, LESS, AGAIN = "keep", "less", "ask again"
OLD = {KEEP: None, LESS: 0.5, AGAIN: 0.0}
"""What becomes of judgements under all earlier guidelines, and what each then weighs."""


PATH = "/lead"
CLEAN_S = 3600
"""How long files that leads sent or fetched stay in Gradio's folder."""


def add_leads(app: FastAPI, page: gr.Blocks, who: Callable[[Request], Account | None]) -> None:
    """Mount the page; whoever is no lead is not let in."""

    def lead(request: Request) -> str | None:
        found = who(request)
        return found.handle if found and found.role in LEADS and found.state == "active" else None

    gr.mount_gradio_app(  # pyright: ignore[reportUnknownMemberType] - a parameter we do not use has no type
        app,
        page,
        path=PATH,
        auth_dependency=lead,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        i18n=WORDS,
        css='button[role="tab"].selected { color: var(--body-text-color) !important; }',  # orange is too pale for some
    )


def lead_page(store: Store, chores: Chores, *, nobody: str) -> gr.Blocks:
    """The page.

    Args:
        store: the preferences.
        chores: what takes long.
        nobody: the handle of whoever acts where nobody logs in.
    """
    view = _View(store, nobody)
    with gr.Blocks(title="Leads", analytics_enabled=False, delete_cache=(CLEAN_S, CLEAN_S)) as page:
        gr.Markdown(t("heading"))
        project = gr.Dropdown(label=t("project"), choices=view.names(), interactive=True)
        said = gr.Markdown()
        with gr.Tab(t("progress")):
            progress = gr.Markdown()
            agreement = gr.Dataframe(headers=list(AGREEMENT), label=t("agreement"), interactive=False, wrap=True)
            people = gr.Dataframe(
                headers=list(PEOPLE),
                label=t("people"),
                interactive=False,
                wrap=True,
                column_widths=[110 for _ in PEOPLE],
            )
            with gr.Row():
                write = gr.Button(t("write_minutes"))
                minutes = gr.DownloadButton(t("no_minutes"), interactive=False)
            write.click(view.minutes, project, minutes, api_visibility="private")
        with gr.Tab(t("disputes")):
            disputes = gr.Dataframe(headers=list(DISPUTES), label=t("most_disputed"), interactive=False, wrap=True)
            _disputes(view, project, said)
        with gr.Tab(t("guideline")):
            guideline = gr.Textbox(label=t("guideline_text"), lines=12)
            old = gr.Radio([(t(each), each) for each in OLD], value=KEEP, label=t("old"))
            gr.Button(t("save")).click(view.save_guideline, [project, guideline, old], said, api_visibility="private")
        with gr.Tab(t("people")):
            _people(view, said)
        with gr.Tab(t("files")):
            _files(chores, said)
        shown = [progress, agreement, people, disputes, guideline]
        page.load(view.begin, None, [project, *shown], api_visibility="private")
        project.input(view.show, project, shown, api_visibility="private")
        gr.Button(t("again")).click(view.show, project, shown, api_visibility="private")
    return page


def _disputes(view: "_View", project: gr.Dropdown, said: gr.Markdown) -> None:
    item = gr.Number(label=t("item"), precision=0)
    texts = gr.Markdown()
    item.change(view.item, [project, item], texts, api_visibility="private")
    remark = gr.Textbox(label=t("remark"))
    gr.Button(t("comment")).click(view.comment, [project, item, remark], said, api_visibility="private")
    with gr.Row():
        with gr.Column():
            verdict = gr.Radio(["A", "B", (t("tie"), "tie"), (t("neither"), "neither")], label=t("verdict"))
            why = gr.Textbox(label=t("why"))
            gr.Button(t("adjudicate")).click(
                view.adjudicate, [project, item, verdict, why], said, api_visibility="private"
            )
        with gr.Column():
            person = gr.Textbox(label=t("person"))
            reason = gr.Textbox(label=t("returned_why"))
            gr.Button(t("send_back")).click(
                view.send_back, [project, item, person, reason], said, api_visibility="private"
            )


def _people(view: "_View", said: gr.Markdown) -> None:
    gr.Markdown(t("pausing"))
    name = gr.Textbox(label=t("name"))
    reason = gr.Textbox(label=t("audit_why"))
    with gr.Row():
        gr.Button(t("pause")).click(view.pause, [name, reason], said, api_visibility="private")
        gr.Button(t("let_go_on")).click(view.let_go_on, [name, reason], said, api_visibility="private")


def _files(chores: Chores, said: gr.Markdown) -> None:
    chosen = gr.State("")
    with gr.Row():
        file = gr.UploadButton(t("choose"), type="filepath", file_count="single")
        take_in = gr.Button(t("import"))

    def look(path: str) -> tuple[str, str, gr.Dataframe]:
        told, refused = chores.look(path)
        return path, told, _filled(refused)

    def take_in_chosen(path: str) -> tuple[str, gr.Dataframe]:
        told, refused = chores.take_in(path)
        return told, _filled(refused)

    def hand_out(name: str) -> tuple[gr.DownloadButton, str]:
        path, told = chores.hand_out(name)
        return gr.DownloadButton(t("fetch"), value=path, interactive=path is not None), told

    refused = gr.Dataframe(headers=list(REFUSED), label=t("refused"), interactive=False, wrap=True, visible=False)
    file.upload(look, file, [chosen, said, refused], api_visibility="private")
    take_in.click(take_in_chosen, chosen, [said, refused], api_visibility="private")
    with gr.Row():
        form = gr.Dropdown(chores.forms(), label=t("form"), value=chores.forms()[0])
        make = gr.Button(t("export"))
        fetch = gr.DownloadButton(t("no_export"), interactive=False)
    make.click(hand_out, form, [fetch, said], api_visibility="private")
    name = gr.Textbox(label=t("version"))
    with gr.Row():
        gr.Button(t("preview")).click(chores.preview, None, said, api_visibility="private")
        gr.Button(t("freeze")).click(chores.freeze, name, said, api_visibility="private")


class _View:
    """What the page shows and does, by project."""

    def __init__(self, store: Store, nobody: str) -> None:
        self._store, self._nobody = store, nobody
        self._queue, self._projects = Queue(store.engine), Projects(store.engine)
        self._leading, self._accounts = Leading(store.engine), Accounts(store.engine)

    def names(self) -> list[str]:
        return [each.name for each in self._projects.all()]

    def first(self) -> str | None:
        return next(iter(self.names()), None)

    def begin(self) -> list[Any]:
        return [gr.Dropdown(choices=self.names(), value=self.first()), *self.show(self.first())]

    def show(self, project: str | None) -> list[Any]:
        if not project:
            return ["No project yet: `workbench ask NAME` begins one.", *(_filled([]) for _ in range(3)), ""]
        found = self._projects.get(project)
        everything = told(self._store.engine, project)
        return [
            progress_text(self._queue.progress(project)),
            _filled(agreement_rows(everything, found.mode)),
            _filled(people_rows(everything)),
            _filled(dispute_rows(everything)),
            found.guideline,
        ]

    def minutes(self, project: str | None) -> gr.DownloadButton:
        """Who judged how much in how many minutes, as a file."""
        path = None
        if project:
            path = fresh_folder() / "active-minutes.csv"
            path.write_text(minutes_csv(told(self._store.engine, project)), encoding="utf-8")
        return gr.DownloadButton(t("minutes"), value=path, interactive=path is not None)

    def item(self, project: str | None, number: float | None) -> str:
        """An item's texts, as text: what models wrote is not rendered here."""
        if not project or not number:
            return ""
        try:
            found = self._leading.comparison(project, int(number))
            remarks = self._leading.comments(project, int(number))
        except PreferenceDataError as error:
            return str(error)
        turns = [(message.role, message.content) for message in found.prompt.messages]
        texts = [(chr(65 + k), each.text) for k, each in enumerate(found.completions)]
        noted = [(f"comment of {escape(each.by)}, {each.at:%Y-%m-%d}", each.text) for each in remarks]
        return "\n\n".join(f"**{name}**\n\n{_quoted(text)}" for name, text in (*turns, *texts, *noted))

    def comment(self, project: str | None, number: float | None, text: str, request: gr.Request) -> str:
        return self._done(
            lambda: self._leading.comment(project or "", int(number or 0), text, by=self._who(request)),
            "Noted; whoever opens the item sees it.",
        )

    def adjudicate(  # noqa: PLR0917 - Gradio gives inputs by place
        self, project: str | None, number: float | None, verdict: str | None, why: str, request: gr.Request
    ) -> str:
        opinion = Pairwise(Verdict({"A": "first", "B": "second"}.get(verdict or "", verdict or "skip")))
        return self._done(
            lambda: self._leading.adjudicate(project or "", int(number or 0), opinion, why=why, by=self._who(request)),
            "Decided: at the next freeze this takes the place of all other judgements of the item.",
        )

    def send_back(  # noqa: PLR0917
        self, project: str | None, number: float | None, person: str, reason: str, request: gr.Request
    ) -> str:
        return self._done(
            lambda: self._leading.send_back(
                project or "", int(number or 0), person.strip(), reason=reason, by=self._who(request)
            ),
            "Sent back: the person sees it next, with the reason.",
        )

    def save_guideline(self, project: str | None, text: str, old: str, request: gr.Request) -> str:
        def save() -> None:
            found = self._projects.get(project or "")
            weight = OLD[old]
            changed = {} if weight is None else {"counts_from": found.change + 1, "old_weight": weight}
            self._queue.change(found.name, guideline=text, settings=replace(found.settings, **changed),
                               by=self._who(request))  # fmt: skip

        return self._done(save, "Saved: people see it from the next item on.")

    def pause(self, person: str, reason: str, request: gr.Request) -> str:
        return self._set_state(person.strip(), "paused", reason, request)

    def let_go_on(self, person: str, reason: str, request: gr.Request) -> str:
        return self._set_state(person.strip(), "active", reason, request)

    def _set_state(self, person: str, state: State, reason: str, request: gr.Request) -> str:
        def change() -> None:
            found = next((each for each in self._accounts.all() if each.handle == person), None)
            if found is not None and (found.role != "annotator" or found.state == "closed"):
                raise Refused(f"{person}: {found.role}, {found.state}; leads pause annotators only; an admin changes "
                              "others: `workbench people change`")  # fmt: skip
            self._accounts.change(person, Wanted(state=state, reason=reason), by=self._who(request))

        return self._done(change, f"{escape(person)}: {state}.")

    def _who(self, request: gr.Request) -> str:
        return request.username or self._nobody

    @staticmethod
    def _done(action: Callable[[], object], told: str) -> str:
        try:
            action()
        except PreferenceDataError as error:
            return f"Not done: {escape(str(error))}"
        return told


def _filled(rows: Sequence[Sequence[str | float]]) -> gr.Dataframe:
    """A table's rows; an empty table is hidden, for it scrolls and nothing in it takes the focus."""
    return gr.Dataframe(value=[list(row) for row in rows], visible=bool(rows))


def _quoted(text: str) -> str:
    return f'<pre dir="auto">{escape(text)}</pre>'
