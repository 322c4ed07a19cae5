import errno
import json
import os
import resource
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preference_data.errors import VersionError
from preference_data.records import Message, Pair, Prompt
from preference_data.versions import MANIFEST_FILE, PAIRS_FILE, load_version, rows_digest, write_version

PAIRS = [
    Pair(
        Prompt.of("How long does an egg boil?"),
        "Six minutes.",
        "Ask a cook.",
        1.0,
        None,
        ("j1",),
        {"source": "a"},
        "train",
    ),
    Pair(
        Prompt((Message("system", "Be brief."), Message("user", "Où est la gare ?"))),
        "À gauche.",
        "Je ne sais pas 😀",
        1 / 3,
        2.5,
        ("j2", "j3"),
        {"source": "b", "language": "fr"},
        "test",
    ),
    Pair(Prompt.of("Name a colour."), "Green", "Loud", 0.5, 3.0, ("j4",), {"source": "a"}, "train"),
]
GOLDEN = "6fbd221e54fb47c6eac0f47d869afefd17b230c60931d404cdf3afe4b10c86e1"


def write(pairs, directory, **facts):
    return write_version(pairs, directory, **({"rule": {"min_pairs": 1}, "watermark": 7, "head": "h"} | facts))


@pytest.fixture
def version(tmp_path):
    return write(PAIRS, tmp_path / "versions")


def by_key(pairs):
    return sorted(pairs, key=lambda pair: pair.key)


def test_the_digest_is_the_same_on_every_machine(version):
    assert version.digest == rows_digest(PAIRS) == GOLDEN


def test_what_was_written_is_read_back(version):
    assert version.pairs() == by_key(PAIRS)
    assert version.pairs("train") == by_key([PAIRS[0], PAIRS[2]])
    assert version.pairs("select") == []
    assert version.counts == {"train": 2, "select": 0, "test": 1}


def test_the_manifest_says_where_it_came_from(version):
    manifest = json.loads((version.path / MANIFEST_FILE).read_text("utf-8"))
    assert manifest["digest"] == version.digest == version.path.name
    assert manifest["rule"] == {"min_pairs": 1}
    assert (manifest["watermark"], manifest["head"], manifest["parent"]) == (7, "h", "")
    assert manifest["counts"] == {"train": 2, "select": 0, "test": 1}
    assert manifest["slices"] == {"language": {"fr": 1}, "source": {"a": 2, "b": 1}}
    assert manifest["size"] == (version.path / PAIRS_FILE).stat().st_size
    assert sorted(path.name for path in version.path.parent.iterdir()) == [version.digest]


def test_loading_and_verifying_a_whole_version(version):
    loaded = load_version(version.path)
    loaded.verify()
    assert loaded == version


def test_a_copy_under_another_name_is_the_same_version(version, tmp_path):
    shutil.copytree(version.path, tmp_path / "copy")
    copy = load_version(tmp_path / "copy")
    copy.verify()
    assert (copy.digest, copy.pairs()) == (version.digest, version.pairs())


def test_the_same_rows_reuse_the_folder(version):
    before = (version.path / PAIRS_FILE).stat().st_mtime_ns
    again = write(reversed(PAIRS), version.path.parent, watermark=9)
    assert again == version
    assert again.manifest.watermark == 7
    assert (version.path / PAIRS_FILE).stat().st_mtime_ns == before


@given(st.permutations(PAIRS))
def test_the_digest_depends_on_no_order(pairs):
    assert rows_digest(pairs) == GOLDEN


@settings(deadline=None, max_examples=25)
@given(
    chosen=st.text(st.characters(codec="utf-8"), min_size=1),
    weight=st.floats(0, 1),
    strength=st.none() | st.floats(1, 3),
    slices=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
)
def test_any_pair_survives_the_file(tmp_path_factory, chosen, weight, strength, slices):
    pair = Pair(Prompt.of("?"), chosen, "no", weight, strength, (), slices, "select")
    version = write([pair], tmp_path_factory.mktemp("versions"))
    assert version.pairs() == [pair]
    version.verify()


@pytest.mark.parametrize("name", [PAIRS_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "bit"])
def test_damage_is_named_with_the_next_action(version, name, damage):
    target = version.path / name
    content = bytearray(target.read_bytes())
    if damage == "missing":
        target.unlink()
    elif damage == "cut":
        target.write_bytes(content[:-20])
    elif damage == "empty":
        target.write_bytes(b"")
    else:
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
    with pytest.raises(VersionError, match=f"{name}: .*freeze again"):
        load_version(version.path)


@settings(deadline=None, max_examples=60)
@given(
    place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from([PAIRS_FILE, MANIFEST_FILE])
)
def test_any_flipped_bit_is_noticed(tmp_path_factory, place, bit, name):
    version = write(PAIRS, tmp_path_factory.mktemp("versions"))
    content = bytearray((version.path / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (version.path / name).write_bytes(content)
    with pytest.raises(VersionError, match=name):
        load_version(version.path)


def test_verifying_notices_rows_that_the_manifest_does_not_name(version, tmp_path):
    other = write(PAIRS[:2], tmp_path / "other")
    forged = type(version)(version.digest, other.path, other.manifest)
    with pytest.raises(VersionError, match=rf"rows hash to {other.digest}; expected {version.digest}"):
        forged.verify()


def test_pairs_of_a_vanished_file_name_it(version):
    (version.path / PAIRS_FILE).unlink()
    with pytest.raises(VersionError, match=PAIRS_FILE):
        version.pairs()


def test_a_folder_that_is_no_version(tmp_path):
    with pytest.raises(VersionError, match=r"MANIFEST.json: No such file .* expected a dataset version"):
        load_version(tmp_path)


def test_a_manifest_that_is_json_but_no_manifest(tmp_path):
    (tmp_path / MANIFEST_FILE).write_text("[]")
    with pytest.raises(VersionError, match="check sum differs"):
        load_version(tmp_path)


def test_a_damaged_version_in_the_way_is_not_overwritten(version):
    (version.path / PAIRS_FILE).write_bytes(b"")
    with pytest.raises(VersionError, match="delete it and freeze again"):
        write(PAIRS, version.path.parent)
    assert (version.path / PAIRS_FILE).read_bytes() == b""


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VersionError, match=r"No space left on device.*nothing of it was kept; free space"):
        write(PAIRS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_system_refuses_to_grow_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(VersionError, match="nothing of it was kept"):
            write(PAIRS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("survived", range(4))
def test_killed_at_any_sync_there_is_a_whole_version_or_none(tmp_path, monkeypatch, survived):
    """Three files and folders are synced before the rename, the parent folder after it. A kill cleans nothing up."""
    left = iter(range(survived))

    def kill(_):
        if next(left, None) is None:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kill)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            write(PAIRS, tmp_path)
    assert (tmp_path / GOLDEN).exists() == (survived == 3)
    again = write(PAIRS, tmp_path)
    again.verify()
    assert again.digest == GOLDEN


def test_another_process_that_published_first_wins(tmp_path, monkeypatch):
    first = write(PAIRS, tmp_path / "first")
    path_class = type(tmp_path)
    rename = path_class.rename

    def late(staging, target):
        shutil.copytree(first.path, target)
        return rename(staging, target)

    monkeypatch.setattr(path_class, "rename", late)
    second = write(PAIRS, tmp_path / "second", watermark=9)
    assert second.manifest == first.manifest
    assert [path.name for path in (tmp_path / "second").iterdir()] == [GOLDEN]
