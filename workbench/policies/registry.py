"""Policies: immutable weights, where they come from, and which one is champion."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, insert, select, update

from preference_data.database import reading, writing
from workbench.errors import ArtifactError, PolicyError
from workbench.failpoints import failpoint
from workbench.objects import Objects, disk_faults, entry, manifest_digest
from workbench.policies import champion
from workbench.policies.checkpoints import base_files, check_fits, copy_weights, kind_of, read_base
from workbench.policies.lineage import ancestry
from workbench.policies.records import PolicyRecord, find_policy
from workbench.schema import policy as table
from workbench.tasks import PolicyRef


class Registry:
    """Policies in a ledger database, their weights among the objects.

    Args:
        engine: an opened ledger.
        objects: where weights made or adopted here lie; those of a base stay where they are.
    """

    def __init__(self, engine: Engine, objects: Objects) -> None:
        self._engine, self._objects = engine, objects

    def add_base(self, path: Path, name: str) -> PolicyRecord:
        """Register policy 0 of a lineage. The first one becomes champion. Adding it again only updates its path.

        Args:
            path: a Hugging Face model folder with safetensors, tokenizer and chat template; it stays where it is.
            name: what people call it.

        Raises:
            ModelError: the folder is incomplete, damaged or unsafe.
        """
        found = read_base(path)
        digest = manifest_digest(found.weights)
        files = {n: e._asdict() for n, e in (found.weights | found.tokenizer).items()}
        record = PolicyRecord(
            digest=digest, kind="full", parent=None, base=digest, tokenizer=manifest_digest(found.tokenizer),
            path=str(path.absolute()), origin="base", name=name, facts=found.facts | {"files": files},
        )  # fmt: skip
        with writing(self._engine) as connection:
            known = self._add(connection, record)
            if known.tokenizer != record.tokenizer:
                raise PolicyError(
                    f"{path}: tokenizer or chat template differ from those of base {known.name} ({digest[:12]}), "
                    "which has the same weights; restore its files, since every score depends on them"
                )
            connection.execute(update(table).where(table.c.digest == digest).values(path=record.path))
            if champion.current(connection) is None:
                champion.move(connection, "promote", digest, expected=None, reason="first base", by="registry")
            failpoint("registry.add.before_commit")
        failpoint("registry.add.after_commit")
        return self.get(digest)

    def add(self, record: PolicyRecord) -> PolicyRecord:
        """Register a policy whose weights are published. Adding it again gives the record kept.

        Raises:
            PolicyError: the parent or base is unknown, or the same weights are registered with another parent.
        """
        with writing(self._engine) as connection:
            known = self._add(connection, record)
            failpoint("registry.add.before_commit")
        failpoint("registry.add.after_commit")
        return known

    def commit_child(
        self,
        digest: str,
        *,
        parent: str,
        round_digest: str | None,
        version: str | None,
        config: str | None,
        name: str,
        facts: Mapping[str, Any] | None = None,
        origin: Literal["round", "adopted"] = "round",
    ) -> PolicyRecord:
        """Register weights published among the objects as the child of a policy.

        Args:
            digest: object with the child's files.
            parent: digest of the policy it was trained from.
            round_digest: the round that made it, where one did.
            version: digest of the dataset version it was trained on, where known.
            config: digest of the settings, where known.
            name: what people call it.
            facts: further JSON values to keep with it.
            origin: trained here by a round, or adopted.

        Raises:
            PolicyError: the weights do not fit the parent's base, or are registered with another parent.
        """
        line = self.get(parent)
        folder = self._objects.path(digest)
        self._check_line(folder, line)
        return self.add(
            PolicyRecord(
                digest=digest, kind=kind_of(folder), parent=line.digest, base=line.base, tokenizer=line.tokenizer,
                path=str(folder), origin=origin, name=name, round=round_digest, version=version, config=config,
                facts=dict(facts or {}),
            )
        )  # fmt: skip

    def adopt(self, path: Path, *, parent: str, version: str | None = None, name: str) -> PolicyRecord:
        """Register a checkpoint trained elsewhere; its weights and configuration are copied.

        Args:
            path: a PEFT adapter or a full Hugging Face model, as safetensors.
            parent: what it was trained from, as `resolve` takes it.
            version: digest of the dataset version it was trained on, where known.
            name: what people call it.

        Raises:
            PolicyError: the folder is missing, incomplete, damaged or unsafe, or does not fit the parent's base.
            ArtifactError: the disk is full or failing.
        """
        if not path.is_dir():
            raise PolicyError(f"{path}: no such folder; give the folder of an adapter or of full weights")
        line = self.resolve(parent)
        self._check_line(path, line)
        staged = self._objects.stage()
        try:
            with disk_faults(staged):
                copy_weights(path, staged)
            digest = self._objects.publish(staged)
        finally:
            self._objects.discard(staged)
        return self.commit_child(
            digest, parent=line.digest, round_digest=None, version=version, config=None, name=name, origin="adopted"
        )

    def get(self, digest: str) -> PolicyRecord:
        """The policy of exactly this digest.

        Raises:
            PolicyError: there is none.
        """
        with reading(self._engine) as connection:
            return self._get(connection, digest)

    def resolve(self, name: str) -> PolicyRecord:
        """A policy by what people call it.

        Args:
            name: `champion`; `base` (of the champion's lineage); a policy's name; a digest or a prefix of at least
                four characters; a round's number in the champion's lineage, as `2` or `round-2`.

        Raises:
            PolicyError: nothing or several policies answer to it; lists what exists.
        """
        known = {p.digest: p for p in self.policies()}
        with reading(self._engine) as connection:
            return find_policy(name, known, champion.current(connection))

    def ref(self, record: PolicyRecord) -> PolicyRef:
        """What jobs are told of a policy."""
        return record.ref(self.get(record.base).path)

    def policies(self) -> tuple[PolicyRecord, ...]:
        """All policies, oldest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).order_by(table.c.created_at, table.c.digest)).mappings()
            return tuple(self._record(dict(row)) for row in rows)

    def lineage(self, digest: str) -> tuple[PolicyRecord, ...]:
        """A policy and all it descends from, the base first.

        Raises:
            PolicyError: it is unknown.
        """
        known = {p.digest: p for p in self.policies()}
        return tuple(known[d] for d in ancestry(digest, {d: p.parent for d, p in known.items()}))

    def promote(
        self, digest: str, *, reason: str, by: str, expected: str | None, round_digest: str | None = None
    ) -> PolicyRecord:
        """Make a policy champion if the champion still is the expected one. A round promotes once.

        Args:
            digest: the policy.
            reason: why, for the history.
            by: who.
            expected: digest of the champion this is decided against; None where there is none.
            round_digest: the round that decided; promoting for it again changes nothing.

        Raises:
            PolicyError: the champion is another, the round promoted another policy, or the weights are damaged.
        """
        self.verify(digest)
        with writing(self._engine) as connection:
            record = self._get(connection, digest)
            if not _promoted_before(connection, digest, round_digest):
                champion.move(
                    connection, "promote", digest, expected=expected, reason=reason, by=by, round_digest=round_digest
                )
            failpoint("registry.promote.before_commit")
        failpoint("registry.promote.after_commit")
        return record

    def rollback(self, *, reason: str, by: str, to: str) -> PolicyRecord:
        """Make an earlier policy champion again.

        Args:
            reason: why, for the history.
            by: who.
            to: the policy, as `resolve` takes it.

        Raises:
            PolicyError: the policy is unknown, or its weights are damaged.
        """
        with reading(self._engine) as connection:
            present = champion.current(connection)
        goal = self.resolve(to)
        self.verify(goal.digest)
        with writing(self._engine) as connection:
            champion.move(connection, "rollback", goal.digest, expected=present, reason=reason, by=by)
        return goal

    def history(self) -> tuple[champion.Move, ...]:
        """All moves of the champion, oldest first."""
        with reading(self._engine) as connection:
            return tuple(champion.moves(connection))

    def verify(self, *digests: str) -> None:
        """Check every byte of policies' files, and once of each of their bases.

        Raises:
            PolicyError: one is unknown, or a file is missing or changed; names the file and the next action.
        """
        sound: set[str] = set()
        for record in map(self.get, digests):
            try:
                if record.base not in sound:
                    _verify_base(self.get(record.base))
                    sound.add(record.base)
                if record.origin != "base":
                    self._objects.verify(record.digest)
            except ArtifactError as error:
                raise PolicyError(f"policy {record.name} ({record.digest[:12]}): {error}") from error

    def _check_line(self, folder: Path, parent: PolicyRecord) -> None:
        """Check that a folder may be the child of a policy."""
        if kind_of(folder) == "adapter" and parent.kind == "full" and parent.origin != "base":
            raise PolicyError(
                f"{folder}: an adapter over {parent.name} ({parent.digest[:12]}), which has full weights of its own; "
                "expected an adapter over the base; merge it and give the full weights, or add the parent as a base"
            )
        check_fits(folder, Path(self.get(parent.base).path))

    def _add(self, connection: Connection, record: PolicyRecord) -> PolicyRecord:
        """Insert a record, or give the one that is there."""
        row = connection.execute(select(table).where(table.c.digest == record.digest)).mappings().one_or_none()
        if row is not None:
            known = self._record(dict(row))
            if (known.parent, known.base) != (record.parent, record.base):
                raise PolicyError(
                    f"policy {record.digest[:12]}: the same weights are registered as {known.name} with parent "
                    f"{str(known.parent)[:12]}, now given parent {str(record.parent)[:12]}; use the one there is"
                )
            return known
        for digest in {record.parent, record.base} - {None, record.digest}:
            self._get(connection, str(digest))
        values = {f.name: getattr(record, f.name) for f in fields(record)}
        values |= {"facts": dict(record.facts), "path": record.path if record.origin == "base" else None}
        connection.execute(insert(table).values(values))
        return record

    def _get(self, connection: Connection, digest: str) -> PolicyRecord:
        row = connection.execute(select(table).where(table.c.digest == digest)).mappings().one_or_none()
        if row is None:
            raise PolicyError(f"policy {digest[:12]}: unknown; `workbench policies` lists what there is")
        return self._record(dict(row))

    def _record(self, row: Mapping[str, Any]) -> PolicyRecord:
        """A record from its row; what lies among the objects moves with them."""
        values: dict[str, Any] = {**row, "path": row["path"] or str(self._objects.path(row["digest"]))}
        return PolicyRecord(**values)


def _promoted_before(connection: Connection, digest: str, round_digest: str | None) -> bool:
    """Whether there is nothing to do: the round promoted this policy, or, without a round, it is champion."""
    if round_digest is None:
        return champion.current(connection) == digest
    done = [m.new for m in champion.moves(connection) if m.round == round_digest]
    if done and done != [digest]:
        raise PolicyError(f"round {round_digest[:12]} promoted {done[0][:12]} before, now given {digest[:12]}; "
                          "a round promotes once: plan a new round")  # fmt: skip
    return bool(done)


def _verify_base(base: PolicyRecord) -> None:
    folder = Path(base.path)
    found = {file.name for file in base_files(folder)}
    wanted = dict(base.facts["files"])
    for name in sorted(found | wanted.keys()):
        if name not in found or name not in wanted or entry(folder / name)._asdict() != wanted[name]:
            state = "missing" if name not in found else "new" if name not in wanted else "changed"
            raise PolicyError(
                f"{folder / name}: {state} since base {base.name} ({base.digest[:12]}) was added, so that its scores "
                "would no longer hold; restore the folder as it was, or add it again where it was moved"
            )
