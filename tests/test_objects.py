"""Content-addressed folders: published whole or not at all, and every damage is found."""

import errno
import hashlib
import json
import os
import time
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from workbench.errors import ArtifactError
from workbench.objects import MANIFEST, Objects, Swept, disk_faults, seal, verify_folder


@pytest.fixture
def objects(tmp_path):
    return Objects(tmp_path)


def staged(objects, **files):
    folder = objects.stage()
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_digest_is_the_hash_of_the_manifest_and_can_be_worked_out_by_hand(objects):
    digest = objects.publish(staged(objects, a="x", sub__b="yz"))
    entries = ",".join(
        f'"{name}":{{"sha256":"{hashlib.sha256(text).hexdigest()}","size":{len(text)}}}'
        for name, text in (("a", b"x"), ("sub/b", b"yz"))
    )
    assert digest == hashlib.sha256(f"{{{entries}}}".encode()).hexdigest()
    assert (objects.path(digest) / MANIFEST).read_text() == f"{{{entries}}}"
    objects.verify(digest)


def test_the_same_content_is_one_folder(objects):
    first, second = objects.publish(staged(objects, a="x")), objects.publish(staged(objects, a="x"))
    assert first == second
    assert names(objects.root / "objects") == [first]
    assert names(objects.root / "staging") == []


def test_publishing_over_a_damaged_object_heals_it(objects):
    digest = objects.publish(staged(objects, a="x"))
    (objects.path(digest) / "a").write_text("y")
    assert objects.publish(staged(objects, a="x")) == digest
    objects.verify(digest)
    assert (objects.path(digest) / "a").read_text() == "x"


@pytest.mark.parametrize("name", ["weights", "sub/config", MANIFEST])
@pytest.mark.parametrize("damage", ["removed", "truncated", "emptied", "lengthened"])
def test_every_damage_to_every_file_is_named(objects, name, damage):
    digest = objects.publish(staged(objects, weights="0123456789", sub__config="{}"))
    path = objects.path(digest) / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-1], "emptied": b"", "lengthened": content + b"}"}[damage])
    with pytest.raises(ArtifactError, match=f"{name}: (missing|damaged).*run the round again"):
        objects.verify(digest)


@pytest.mark.parametrize("name", ["weights", "sub/config", MANIFEST])
def test_any_flipped_bit_is_found(objects, name):
    digest = objects.publish(staged(objects, weights="0123456789", sub__config="{}"))
    path = objects.path(digest) / name
    content = path.read_bytes()
    for position in range(0, 8 * len(content), 7):  # 7 and 8 have no common factor: every bit of a byte gets its turn
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            objects.verify(digest)


def test_an_extra_file_and_a_swapped_manifest_are_named(objects):
    digest, other = objects.publish(staged(objects, a="x")), objects.publish(staged(objects, a="y"))
    (objects.path(digest) / "b").write_text("")
    with pytest.raises(ArtifactError, match=r"/b: not part of what was published; remove"):
        objects.verify(digest)
    objects.path(digest).rename(objects.root / "away")
    objects.path(other).rename(objects.path(digest))
    with pytest.raises(ArtifactError, match=f"{MANIFEST}: damaged: it is of {other[:12]}, expected {digest[:12]}"):
        objects.verify(digest)
    with pytest.raises(ArtifactError, match="no such object"):
        objects.verify(other)


def test_links_are_refused(objects):
    folder = staged(objects, a="x")
    (folder / "link").symlink_to(folder / "a")
    with pytest.raises(ArtifactError, match="link: is a link"):
        objects.publish(folder)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_publishes_nothing_and_says_what_to_do(objects, monkeypatch, code):
    kept = objects.publish(staged(objects, old="x"))
    real, calls, refusals = os.fsync, [], []
    for failing in range(30):
        folder, calls[:] = staged(objects, a="x", sub__b="y"), []

        def fsync(descriptor, failing=failing):
            calls.append(descriptor)
            if len(calls) == failing + 1:
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            new = objects.publish(folder)
        except ArtifactError as error:
            refusals.append(str(error))
            for name in names(objects.root / "objects"):
                objects.verify(name)
        else:
            break
        finally:
            monkeypatch.setattr(os, "fsync", real)
    # two files, the subfolder, the folder, the manifest, the folder again, and the parent of the new name
    assert len(refusals) == 7
    advice = "free some space" if code == errno.ENOSPC else "check the disk"
    assert all(os.strerror(code) in message and advice in message for message in refusals)
    assert names(objects.root / "objects") == sorted([kept, new])


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed"), SafetensorError("I/O error")])
def test_a_full_disk_is_told_whoever_meets_it(tmp_path, monkeypatch, error):
    def write():
        with disk_faults(tmp_path / "not yet there"):
            raise error

    with pytest.raises(type(error)):
        write()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(ArtifactError, match="the disk is full .* free some space"):
        write()


def test_other_faults_of_the_system_pass_unchanged(objects, monkeypatch):
    def fsync(_):
        raise PermissionError(errno.EACCES, "no")

    folder = staged(objects, a="x")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PermissionError):
        objects.publish(folder)


def test_a_sweep_keeps_what_is_referred_to_and_what_is_young(objects):
    keep, drop = objects.publish(staged(objects, a="1234")), objects.publish(staged(objects, a="123"))
    young = objects.publish(staged(objects, a="12"))
    left = staged(objects, half="12345")
    hour_ago = time.time() - 3600
    for folder in (objects.path(keep), objects.path(drop), left):
        os.utime(folder, (hour_ago, hour_ago))
    freed = 3 + len((objects.path(drop) / MANIFEST).read_bytes()) + 5
    assert objects.sweep({keep}, older_than_s=60) == Swept(freed, 2)
    assert names(objects.root / "objects") == sorted([keep, young])
    assert names(objects.root / "staging") == []


def test_publishing_again_makes_an_object_young(objects):
    digest = objects.publish(staged(objects, a="x"))
    os.utime(objects.path(digest), (0, 0))
    objects.publish(staged(objects, a="x"))
    assert objects.sweep(set(), older_than_s=60) == Swept(0, 0)


def test_a_checkpoint_counts_once_it_is_sealed(tmp_path):
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"12345")
    with pytest.raises(ArtifactError, match=r"MANIFEST.json: missing: the folder was never finished"):
        verify_folder(folder)
    digest = seal(folder)
    assert verify_folder(folder) == digest
    assert names(tmp_path) == ["checkpoint-10"]
    assert json.loads((folder / MANIFEST).read_text())["optimizer.pt"]["size"] == 5
    (folder / "optimizer.pt").write_bytes(b"12346")
    with pytest.raises(ArtifactError, match=r"optimizer.pt: damaged"):
        verify_folder(folder)
    assert seal(folder) != digest
