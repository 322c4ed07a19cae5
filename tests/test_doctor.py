import json
import socket
import sqlite3
import stat

import pytest
from typer.testing import CliRunner

from workbench import doctor
from workbench.cli import app
from workbench.config import MachineSettings


def levels(findings):
    return {f.name: f.level for f in findings}


@pytest.fixture
def listener():
    """A port somebody answers at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def no_local_ray(monkeypatch):
    monkeypatch.setattr(doctor, "RAY_PORTS", ())


def test_a_ray_port_that_answers_without_a_token_is_broken(listener, tmp_path):
    [found] = doctor.ray({"RAY_ADDRESS": f"127.0.0.1:{listener}"}, tmp_path)
    assert (found.name, found.level) == ("Ray", "broken")
    assert f"127.0.0.1:{listener}" in found.found
    assert "ray get-auth-token --generate" in found.advice


def test_a_local_cluster_counts_without_an_address_too(listener, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "RAY_PORTS", (listener,))
    assert levels(doctor.ray({}, tmp_path)) == {"Ray": "broken"}
    assert levels(doctor.ray({"RAY_AUTH_TOKEN": "secret"}, tmp_path)) == {"Ray": "ok"}
    assert levels(doctor.ray({"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "disabled"}, tmp_path)) == {"Ray": "broken"}


def test_a_token_file_that_others_may_read_is_a_warning(listener, tmp_path):
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("secret")
    address = {"RAY_ADDRESS": f"ray://127.0.0.1:{listener}"}
    file.chmod(0o644)
    assert levels(doctor.ray(address, tmp_path)) == {"Ray": "ok", "Ray token": "warning"}
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert levels(doctor.ray(address, tmp_path)) == {"Ray": "ok"}


def test_an_address_nobody_answers_at_is_broken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    [found] = doctor.ray({"RAY_ADDRESS": f"127.0.0.1:{port}"}, tmp_path)
    assert found.level == "broken"
    assert "does not answer" in found.found


def test_packages_are_held_to_the_tested_versions():
    pinned = {"torch": "2.13.0", "trl": "1.16.0"}
    assert [f.level for f in doctor.packages({"torch": "2.13.0", "trl": "1.16.0"}, pinned)] == ["ok"]
    [other] = doctor.packages({"torch": "2.12.1", "trl": "1.16.0"}, pinned)
    assert (other.level, other.found) == ("warning", "torch 2.12.1 (tested: 2.13.0)")
    missing, *_ = doctor.packages({"torch": None}, pinned)
    assert (missing.level, missing.found) == ("broken", "missing: torch")


def test_this_set_up_has_what_the_project_requires():
    assert levels(doctor.examine(doctor.CONSTRAINTS.parent))["packages"] != "broken"


@pytest.mark.parametrize(
    ("release", "level"), [((3, 51, 3), "ok"), ((3, 40, 1), "warning"), ((3, 50, 7), "ok"), ((3, 52, 0), "warning")]
)
def test_sqlite_without_the_repair_of_its_log_is_a_warning(release, level):
    assert doctor.sqlite(release).level == level


def test_little_disk_is_a_warning_and_none_is_broken():
    assert [doctor.disk(n << 30).level for n in (0, 2, 50)] == ["broken", "warning", "ok"]


def test_another_python_is_broken():
    assert doctor.python((3, 11, 9)).level == "ok"
    assert doctor.python((3, 13, 1)).level == "broken"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_faster_precision_is_measured_and_named(dtype):
    found = doctor.processor(MachineSettings(dtype=dtype, threads=3))
    assert found.found == f"3 cores, faster with numerics.dtype = '{dtype}'"


def test_a_workspace_that_says_nothing_of_numerics_is_told_what_to_write(tmp_path):
    file, fastest = tmp_path / "workbench.toml", MachineSettings(dtype="bfloat16", threads=3)
    file.write_text('base_name = "tiny"\n')
    _, found = doctor.contents(tmp_path, fastest)
    assert found.found == "where a file names none: float32, threads: 1, for workbench.toml says nothing"
    assert 'add [numerics] with dtype = "bfloat16" and threads = 3 to workbench.toml' in found.advice
    assert not list(doctor.contents(tmp_path, MachineSettings()))[1].advice  # nothing would be faster
    file.write_text('base_name = "tiny"\n[numerics]\nthreads = 2\n')
    assert list(doctor.contents(tmp_path, fastest))[1] == (
        "numerics",
        "ok",
        "where a file names none: float32, threads: 2",
        "",
    )


def test_telemetry_that_somebody_switched_on_is_a_warning():
    assert [f.level for f in doctor.telemetry({})] == ["ok"]
    [loud] = doctor.telemetry({"RAY_USAGE_STATS_ENABLED": "1"})
    assert (loud.level, loud.found) == ("warning", "switched on by RAY_USAGE_STATS_ENABLED=1")


def test_a_workspace_whose_database_is_damaged_is_broken(tmp_path):
    (tmp_path / "workbench.toml").write_text('base_name = "tiny"\n')
    assert levels(doctor.contents(tmp_path, MachineSettings())) == {"workspace": "ok", "numerics": "ok"}
    for file in tmp_path.glob("*.db"):
        file.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    [found] = doctor.contents(tmp_path, MachineSettings())
    assert found.level == "broken"


def test_the_verb_exits_with_1_only_where_something_is_broken(monkeypatch, tmp_path):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(0, 0, 100 << 30))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    warned = CliRunner().invoke(app, ["doctor", "--json", "-w", str(tmp_path)])
    assert warned.exit_code == 0, warned.output
    found = json.loads(warned.stdout)
    assert found["ok"] is True
    assert {f["name"]: f["level"] for f in found["findings"]}["SQLite"] == "warning"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(0, 0, 0))
    broken = CliRunner().invoke(app, ["doctor", "--json", "-w", str(tmp_path)])
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["ok"] is False
