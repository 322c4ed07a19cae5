"""What the repository promises about itself: sizes, imports, other libraries' surfaces, pins, set-up, text."""

import ast
import dataclasses
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = tuple(PROJECT["tool"]["importlinter"]["root_packages"])
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
EXEMPTIONS: dict[str, str] = {}  # "package/file.py" or "package/file.py:function" -> why it may be larger

GPU_STACK = {"torch", "transformers", "trl", "ray", "peft"}
CORE = {"config", "drift", "failpoints", "objects", "policies", "rounds", "schema", "tasks", "views"}


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def code_lines(file: Path) -> set[int]:
    """Numbers of the lines that hold code: no blank lines, no comments, no docstrings."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    statement_starts = True
    with tokenize.open(file) as stream:
        for token in tokenize.generate_tokens(stream.readline):
            is_docstring = token.type == tokenize.STRING and statement_starts
            if token.type not in quiet and not is_docstring:
                lines.update(range(token.start[0], token.end[0] + 1))
            if token.type not in {tokenize.COMMENT, tokenize.NL}:
                statement_starts = token.type in {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return lines


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def too_large(file: Path) -> dict[str, int]:
    """Names of what goes beyond the limits in one file, with its number of lines."""
    found = {}
    total = len(file.read_text(encoding="utf-8").splitlines())
    if total > MAX_FILE_LINES:
        found[relative(file)] = total
    code = code_lines(file)
    for function in functions(file):
        size = sum(function.lineno <= line <= (function.end_lineno or 0) for line in code)
        if size > MAX_FUNCTION_LINES:
            found[f"{relative(file)}:{function.name}"] = size
    return found


def test_files_and_functions_fit_their_limits():
    found = {name: size for file in SOURCES for name, size in too_large(file).items()}
    assert found.keys() == EXEMPTIONS.keys(), found


def test_code_lines_counts_code_only(tmp_path):
    file = tmp_path / "sample.py"
    file.write_text('def f(\n    a,\n):\n    """One\n    two."""\n\n    # why\n    return """x\n    y"""\n')
    assert code_lines(file) == {1, 2, 3, 8, 9}  # the signature and the returned text; not docstring, blank or comment


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_planted_violations_of_the_import_contracts_are_caught(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    untouched = lint_imports(tmp_path)
    planted = {
        "preference_data/planted_stack.py": "import torch",
        "preference_data/planted_upward.py": "from workbench import errors",
        "workbench/training/planted_ray.py": "def later():\n    import ray",
        "workbench/scoring/planted_sibling.py": "from workbench import training",
        "workbench/models/planted_trl.py": "from trl import DPOTrainer",
        "workbench/tasks_planted.py": "",
    }
    for path, source in planted.items():
        (tmp_path / path).write_text(source + "\n")
    report = lint_imports(tmp_path)

    assert untouched.returncode == 0, untouched.stdout
    assert report.returncode != 0
    caught = {path for path in planted if path.removesuffix(".py").replace("/", ".") in report.stdout}
    assert caught == planted.keys(), report.stdout


def test_every_package_is_under_the_import_contracts():
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert packages == set(PACKAGES)


def core_contract() -> set[str]:
    contracts = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    return set(contracts["The core needs no GPU stack"]["source_modules"])


def test_the_contract_for_the_core_names_all_of_it():
    present = {
        path.stem for path in (*ROOT.glob("workbench/*.py"), *(i.parent for i in ROOT.glob("workbench/*/__init__.py")))
    }
    assert core_contract() == {f"workbench.{name}" for name in CORE & present}


IMPORT_ALL_AND_LIST = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if ".migrations" not in found.name:
            importlib.import_module(found.name)
print(*sys.modules)
"""


def modules_after_importing(*names: str) -> set[str]:
    """Names of all modules a fresh interpreter holds after importing these and everything inside them."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL_AND_LIST, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_preference_data_loads_no_gpu_stack():
    assert not modules_after_importing("preference_data") & GPU_STACK


def test_the_core_loads_no_gpu_stack():
    assert not modules_after_importing(*sorted(core_contract())) & (GPU_STACK | {"gradio"})


def test_help_is_printed_without_loading_heavy_libraries():
    command = [sys.executable, "-X", "importtime", "-m", "workbench", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "workbench.cli" in loaded
    assert not loaded & (GPU_STACK | {"datasets", "pyarrow", "pandas", "scipy", "sqlalchemy"})


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_compute_loss", ["self", "model", "inputs", "return_outputs"]),
        ("_prepare_dataset", ["self", "dataset", "processing_class", "args", "dataset_name"]),
        ("_precompute_ref_logps", ["self", "dataset", "name", "batch_size"]),
        ("training_step", ["self", "args", "kwargs"]),
    ],
)
def test_trl_calls_the_methods_we_override_with_these_parameters(method, parameters):
    from trl import DPOTrainer

    assert method in vars(DPOTrainer)
    assert list(inspect.signature(getattr(DPOTrainer, method)).parameters) == parameters


def test_transformers_asks_for_the_batches_of_a_step_and_whether_their_losses_are_scaled():
    from transformers import Trainer

    asked = ["self", "epoch_iterator", "num_batches", "device"]
    assert list(inspect.signature(Trainer.get_batch_samples).parameters) == asked
    assert Trainer.loss_is_scaled_for_ga is None


def test_trl_collator_takes_the_fields_we_set():
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    fields = {field.name for field in dataclasses.fields(DataCollatorForPreference)}
    assert fields == {"pad_token_id", "max_length", "truncation_mode", "pad_to_multiple_of", "return_tensors"}


def test_ray_takes_the_options_we_pass():
    import ray

    init = {"address", "num_cpus", "include_dashboard", "ignore_reinit_error", "log_to_driver", "runtime_env"}
    assert init <= inspect.signature(ray.init).parameters.keys()
    task = ray.remote(lambda: None).options(max_retries=0, num_cpus=1, retry_exceptions=False, runtime_env={})
    actor = ray.remote(type("Actor", (), {})).options(max_restarts=0, num_cpus=1, name="one", get_if_exists=True)
    assert callable(task.remote)
    assert callable(actor.remote)
    with pytest.raises(ValueError, match="max_restarts"):  # refused before any cluster exists: the names are checked
        ray.remote(lambda: None).options(max_restarts=1)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pinned}


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["project"]["dependencies"], *extras) for text in group]


def test_constraints_pin_one_plain_version_per_line():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_ranges_admit_the_pinned_version(requirement):
    assert requirement.specifier.contains(pins()[requirement.name.lower()])


@pytest.mark.parametrize("requirement", [Requirement(text) for text in PROJECT["project"]["dependencies"]], ids=str)
def test_what_runs_here_is_what_is_pinned(requirement):
    assert importlib.metadata.version(requirement.name).split("+")[0] == pins()[requirement.name.lower()]


def test_setup_refuses_another_python_with_the_next_step(tmp_path):
    other = tmp_path / "python3.9"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}
    command = ["make", "setup", f"VENV={tmp_path}/venv", f"PYTHON={other}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"Python 3.11 is needed, and '{other}' is not it" in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


TEXT = ("*.py", "*.md", "*.toml", "*.txt", "*.ini", "*.mako", "Makefile", ".ci/run")
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:tmp|work|opt|root)/\w|(?:index-url|find-links)[ =]+\w")


def test_no_text_names_a_path_of_one_machine():
    folders = [ROOT / name for name in (*PACKAGES, "tests", "docs", ".ci")]
    files = [f for pattern in TEXT for f in (*ROOT.glob(pattern), *(x for d in folders for x in d.rglob(pattern)))]
    assert ROOT / "Makefile" in files
    found = {
        f"{relative(file)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    }
    assert found == set()


def test_the_readme_maps_every_package_and_only_what_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = {
        f"{init.parent.relative_to(ROOT).as_posix()}"
        for name in PACKAGES
        for init in (ROOT / name).glob("**/__init__.py")
    }
    unmapped = {folder for folder in folders if f"{folder.rsplit('/', 1)[-1]}/" not in readme}
    named = set(re.findall(r"[\w/]+\.py\b", readme))
    missing = {name for name in named if not any(ROOT.glob(f"**/{name}"))}
    assert (unmapped, missing) == (set(), set())
