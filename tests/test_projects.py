"""The verb about annotation projects: settings, gold and trial items."""

import json

import pytest
from typer.testing import CliRunner

from preference_data.projects import Projects
from preference_data.queue import Given, Queue
from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict, now
from preference_data.store import Entry
from tests.tiny_model import build_tiny_model
from workbench.cli import app
from workbench.workspace import Workspace

FIRST, SECOND = Pairwise(Verdict.FIRST, 2), Pairwise(Verdict.SECOND, 1)


def comparison(number, source):
    answers = tuple(Completion(f"{word} {number}", Imported(source)) for word in ("yes", "no"))
    return Comparison(Prompt.of(f"{source} {number}?"), answers, source)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def ws(tmp_path, model):
    """A project of one open item, and a source of which two comparisons were decided and one was skipped."""
    ws = Workspace.init(tmp_path / "ws", base=model)
    ws.store.add([Entry(comparison(1, "work"), ())])
    ws.ask("p", by="lead", sources=("work",))
    for number, opinions in enumerate([(SECOND, FIRST), (SECOND,), (Pairwise(Verdict.SKIP),)]):
        asked = comparison(number, "sure")
        said = [
            Judgement(asked.key, f"ann-{k}", opinion, now(), rationale=f"because {number}")
            for k, opinion in enumerate(opinions)
        ]
        ws.store.add([Entry(asked, tuple(said))])
    return ws


def run(ws, *words, code=0):
    result = CliRunner().invoke(app, ["projects", *words, "-w", str(ws.root)])
    assert result.exit_code == code, (words, result.output, result.exception)
    return json.loads(result.stdout) if "--json" in words else result.output


def test_projects_are_listed_with_what_is_open(ws, tmp_path, model):
    (listed,) = run(ws, "--json")
    assert (listed["name"], listed["mode"], listed["items"], listed["open"]) == ("p", "pairwise", 1, 1)
    assert "pairwise" in run(ws)
    assert "`workbench ask PROJECT` begins one" in run(Workspace.init(tmp_path / "empty", base=model))


def test_settings_are_shown_changed_and_refused(ws, tmp_path):
    (tmp_path / "g.md").write_text("# Be kind")
    assert run(ws, "change", "p", "--json")["settings"]["gold_share"] == 0
    changed = run(ws, "change", "p", "--set", "gold_share=0.25", "--set", "overlap=2", "--guideline", str(tmp_path / "g.md"),
                  "--json")  # fmt: skip
    assert (changed["settings"]["gold_share"], changed["settings"]["overlap"], changed["change"]) == (0.25, 2, 2)
    kept = Projects(ws.store.engine).get("p")
    assert (kept.settings.gold_share, kept.guideline) == (0.25, "# Be kind")
    assert "overlap" in run(ws, "change", "p", "--set", "overlap=3", "--set", "gold_share=0")
    assert run(ws, "change", "p", "--set", "gold_share=0.5", "--json")["settings"]["overlap"] == 3
    assert Projects(ws.store.engine).get("p").guideline == "# Be kind"
    assert "setting 'gold': unknown" in run(ws, "change", "p", "--set", "gold=1", code=1)
    assert "overlap: got 'many'; expected a value such as 1" in run(ws, "change", "p", "--set", "overlap=many", code=1)
    assert "dimensions: got 'kind'; expected a value such as ()" in run(
        ws, "change", "p", "--set", "dimensions=kind", code=1
    )
    assert "there are: p" in run(ws, "change", "q", code=1)


@pytest.mark.parametrize("purpose", ["gold", "trial"])
def test_items_whose_answer_is_known_are_those_last_judged(ws, purpose):
    words = ["gold", "p", "--source", "sure", *(["--trial"] if purpose == "trial" else [])]
    assert run(ws, *words, "--json") == {"added": 2, "known": 0, "without": 1}
    assert run(ws, *words, "--json") == {"added": 0, "known": 2, "without": 1}
    if purpose == "trial":
        run(ws, "change", "p", "--set", "pass_mark=0.5")
        queue = Queue(ws.store.engine)
        right = {}
        for shown in queue.take("p", "bob", count=2).showings:
            assert shown.purpose == "trial"
            receipt = queue.submit(shown.lease, "bob", Given(opinion=FIRST))
            right[receipt.why] = receipt.right
        assert right == {"because 0": True, "because 1": False}  # the last one said of 0 is the first answer


def test_a_source_without_answers_is_refused(ws):
    assert "no comparison of work has a judgement that fits the mode 'pairwise'" in run(
        ws, "gold", "p", "--source", "work", code=1
    )
