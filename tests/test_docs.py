"""Documentation, executed: the README's commands and Python on a tiny model, and what the pages claim."""

import doctest
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.main import get_group
from typer.testing import CliRunner

from preference_data.exporters import EXPORTERS
from preference_data.importers.registry import BUILT_IN
from preference_data.mapping import Mapping
from preference_data.mapping import samples as mappings
from preference_data.splits import SHARES
from tests.rounds_kit import WORDS
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.cli import VERBS, app
from workbench.config import APPROXIMATE_LOSSES, EXACT_LOSSES, OF_ANSWERS, GateSettings, NumericsSettings
from workbench.drift.power import smallest_share_change
from workbench.drift.retention import Matrix
from workbench.views.preferences import AVERAGES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted(ROOT.glob("docs/*.md")))

BASE = "path/to/model"
"""What the README calls a base."""

OTHER = "path/to/other"
"""What it calls another one."""

NEED_THE_REAL_MODEL = {("demo",), ("model", "fetch")}
RUN_UNTIL_STOPPED = {("page",), ("runner",), ("serve",), ("up",)}
TAKES_LONG = {("bench",)}
SETTABLE = {"plan", "round", "evaluate"}
SMALL = [
    f"--set={one}"
    for one in (
        "training.rank=4",
        "training.max_length=96",
        "training.batch_size=8",
        "training.learning_rate=0.01",
        'evaluation.suites=["refusal"]',
        "evaluation.samples=6",
        "evaluation.max_new_tokens=4",
        "gate.min_gain=-1",
        "gate.max_retention_drop=1",
        "gate.max_kl_parent=50",
        "gate.max_kl_base=50",
    )
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *kinds: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(kinds)})\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Arguments of every `workbench` command in the page's console blocks, in order."""
    lines = "".join(blocks(page, "console", "bash")).splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["workbench"]]


def mentions(page: Path) -> list[list[str]]:
    """The same of every `workbench` command in running text."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [found.split() for found in re.findall(r"`workbench ([^`]+)`", prose)]


def runs_here(arguments: list[str]) -> bool:
    return not any(
        tuple(arguments[: len(verb)]) == verb for verb in NEED_THE_REAL_MODEL | RUN_UNTIL_STOPPED | TAKES_LONG
    )


def write_pairs(path: Path, good: str, bad: str) -> None:
    pairs = [(a, b) for k, a in enumerate(WORDS) for b in WORDS[k + 1 : k + 5]]
    rows = [{"prompt": f"Tell me how {a} is like {b}", "chosen": good, "rejected": bad} for a, b in pairs]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("docs") / "model")


@pytest.fixture
def folder(base, tmp_path, monkeypatch) -> Path:
    """A current folder with the files that the README speaks of."""
    build_tiny_model(base.parent / "other", seed=1)
    write_pairs(tmp_path / "votes.jsonl", "yes", "no")
    write_pairs(tmp_path / "more.jsonl", "certainly", "never")
    (tmp_path / "prompts.txt").write_text("Why is the sky blue?\nWhat is bread?\n", encoding="utf-8")
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapter = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    adapter.save_pretrained(tmp_path / "checkpoints" / "march")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assembly, "fastest_here", NumericsSettings)
    for name in ("RAY_ADDRESS", "WORKBENCH_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(arguments: list[str], base: Path) -> str:
    """Output of a command that the README shows, on the tiny model and at a size for tests."""
    given = [{BASE: str(base), OTHER: str(base.parent / "other")}.get(word, word) for word in arguments]
    result = CliRunner().invoke(app, given + SMALL * (given[0] in SETTABLE))
    # What doctor finds is up to the machine; that it found something has exit status 1.
    ended = result.exit_code == 0 or (given[0] == "doctor" and "broken" in result.output)
    assert ended, (arguments, result.output, result.exception)
    return result.output


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_command_of_the_readme_runs_in_order(folder, base):
    said = [(arguments, run(arguments, base)) for arguments in commands(README) if runs_here(arguments)]
    done = {arguments[0] for arguments, _ in said}
    elsewhere = {
        "explain",
        "loop",
        "projects",
        "rewards",
        "rollback",
    }  # need what is not here, or more than a moment: their own tests run them
    assert done >= VERBS.keys() - elsewhere - {"bench", "demo", "model", "page", "runner", "serve", "simulate", "up"}
    rounds = [out for arguments, out in said if arguments[0] == "round" and "--dry-run" not in arguments]
    assert all("promoted: round-" in out for out in rounds), rounds
    rows = next(out for arguments, out in said if "--rows" in arguments).splitlines()
    assert {json.loads(row)["metric"] for row in rows} == {"margin"}
    assert {"round.toml", "answers.jsonl", "judgements.jsonl", "exported"} <= {p.name for p in folder.iterdir()}


def test_the_python_of_the_readme_runs(folder, base, capsys):
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line]) <= 10
    run(["plan", "--write", "round.toml"], base)
    exec(compile(code.replace(BASE, str(base)), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("70 judgements\n")  # of 20 words 16 are paired with the next 4, the last with 3, 2, 1 and 0
    assert "promoted round-1-" in said


EXAMPLES = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for package in ("preference_data", "workbench", "ui")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in text_of(path)
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_hold(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= 180


def test_every_verb_is_explained_and_has_help():
    shown = {words[0] for page in PAGES for words in (*commands(page), *mentions(page))}
    shown |= set(re.findall(r"make (demo)", text_of(README)))
    assert shown == VERBS.keys()
    assert all(verb.help for verb in VERBS.values())


def command_of(words: list[str]):
    """The command that words call, after loading the modules of its verb."""
    group = get_group(app)
    context = group.make_context("workbench", [words[0]], resilient_parsing=True)
    _, command, _ = group.resolve_command(context, list(words))
    for word in words[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return command


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "workbench" / "DESIGN.md"], ids=lambda p: p.name
)
def test_what_pages_say_of_commands_is_true(page):
    for words in (*commands(page), *mentions(page)):
        command = command_of(words)
        assert command.help, words
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        given = {word.partition("=")[0] for word in words if word.startswith("-")} - {"--help", "-h"}
        assert given <= known, words


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def first_cells(page: Path, heading: str) -> list[str]:
    """What the first column of the first table under a heading says in code."""
    section = text_of(page).partition(f"\n## {heading}")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)


def test_the_page_of_rounds_has_every_loss_and_what_it_is_for_several_anchors():
    page = ROOT / "docs" / "rounds.md"
    rows = re.findall(r"^\| `(\w+)` \|.*\| (exact|approximate) \|", text_of(page), re.MULTILINE)
    assert rows == [
        *((name, "exact") for name in EXACT_LOSSES),
        *((name, "approximate") for name in (*APPROXIMATE_LOSSES, *OF_ANSWERS)),
    ]


def test_the_page_of_rounds_has_the_gate_as_it_is():
    page = text_of(ROOT / "docs" / "rounds.md")
    for name, field in GateSettings.model_fields.items():
        row = next(line for line in page.splitlines() if line.startswith("|") and f"{name}`" in line)
        assert float(row.split("|")[-2].split()[0]) == field.default


def test_the_page_of_data_has_every_format_in_the_order_they_are_tried():
    page = ROOT / "docs" / "data.md"
    assert first_cells(page, "Files that can be imported") == [importer.name for importer in BUILT_IN]
    whole = text_of(page)
    assert [name for name in (*mappings(), *EXPORTERS, *Mapping.model_fields) if name not in whole] == []
    assert ", ".join(f"{share:.0%} {split}".replace("%", " %") for split, share in SHARES.items()) in whole.replace(
        "\n", " "
    )


def test_the_page_of_numbers_has_every_average_with_its_convention():
    rows = dict(re.findall(r"^\| (\w+) \| (1/.*?)[;|]", text_of(ROOT / "docs" / "numbers.md"), re.MULTILINE))
    assert rows.keys() == AVERAGES.keys()
    for name, compute in AVERAGES.items():
        convention = compute(Matrix(("base", "one", "two"), ("a", "b"), ((None, None),) * 3)).convention
        assert rows[name].split(" ")[0] == f"1/{'(T-1)' if 'over T-1' in convention else 'T'}"


def test_the_limits_of_n_that_the_readme_gives_are_those_computed():
    n, change, more, less = map(
        int,
        re.findall(r"(\d+) test pairs show a change of (\d+) .*?(\d+)\n? *one of (\d+)", text_of(README), re.DOTALL)[0],
    )
    assert [round(100 * smallest_share_change(size)) for size in (n, more)] == [change, less]


def test_the_parsers_of_this_file_find_what_is_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Run `workbench gc --scores`.\n```console\nworkbench a b  # c\nls\nworkbench d 'e f'\n```\n")
    assert commands(page) == [["a", "b"], ["d", "e f"]]
    assert mentions(page) == [["gc", "--scores"]]
