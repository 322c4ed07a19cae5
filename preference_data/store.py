"""Append what people said and read it back. With `queries`, the only SQL about preferences.

Every write is one short transaction, acknowledged after its commit, and may be repeated: what is known already counts
as a duplicate and changes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from sqlalchemy import Column, Engine, RowMapping, exists, func, select, update

from preference_data import schema
from preference_data.database import backup, forget_overwritten, insert_missing, open_engine, reading, upgrade, writing
from preference_data.errors import StoreError
from preference_data.queries import (
    CHUNK,
    COMPARISONS,
    READABLE,
    VARIABLES,
    Stored,
    Watermark,
    append,
    assemble,
    bury,
    call_otherwise,
    log_out_for_good,
    lookup,
    number_of,
    people_of,
    prompts_by_key,
    watermark_of,
)
from preference_data.records import Prompt, Split, digest, now
from preference_data.rows import FIRST_HASH, Entry, chain_hash

__all__ = ["Added", "Annotator", "Assignment", "Entry", "Store", "Watermark"]

V = TypeVar("V")
MIGRATIONS = Path(__file__).parent / "migrations"


class Added(NamedTuple):
    """What became of a batch, in judgements; a comparison without any counts as one."""

    stored: int
    duplicates: int


class Assignment(NamedTuple):
    """The split a prompt is in for ever, with the cluster and the MinHash signature that led to it."""

    prompt_key: str
    cluster: str
    split: Split
    signature: bytes


class Annotator(NamedTuple):
    """A person or program that judges. `handle` is a pseudonym and `identity` empty once `erased_at` is set."""

    handle: str
    identity: str
    group: str
    judgements: int
    erased_at: datetime | None


class Store:
    """The preferences of a workspace, in one database."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date; `Store.open` sees to that."""
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a store by its database URL; make it or bring its schema up to date where needed.

        Raises:
            StoreError: the URL or the database refuses, or it is of a newer release.
        """
        engine = open_engine(url)
        upgrade(engine, MIGRATIONS)
        return cls(engine)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, entries: Iterable[Entry]) -> Added:
        """Store a batch, all of it or nothing. Durable when it returns.

        Args:
            entries: some thousands at most; they are held in memory and written in one transaction.

        Raises:
            StoreError: a judgement is about another comparison than its entry's, or the database refused.
        """
        batch = [(entry.comparison.key, entry) for entry in entries]
        bare = {key for key, entry in batch if not entry.judgements}
        said = _first((each.key, each) for _, entry in batch for each in entry.judgements)
        for key, about in ((key, each.comparison) for key, entry in batch for each in entry.judgements):
            if about != key:
                raise StoreError(f"entry: judgement of comparison {about}; expected {key}, the comparison beside it")
        items = sum(len(entry.judgements) or 1 for _, entry in batch)
        with writing(self.engine) as connection:
            known = lookup(connection, schema.comparison.c.key, schema.comparison.c.id, {key for key, _ in batch})
            heard = lookup(connection, schema.judgement.c.key, schema.judgement.c.seq, said.keys())
            comparisons = _first((key, entry.comparison) for key, entry in batch if key not in known)
            judgements = {key: each for key, each in said.items() if key not in heard}
            append(connection, comparisons, judgements, known)
        stored = len(judgements) + len(bare & comparisons.keys())
        return Added(stored, items - stored)

    def watermark(self) -> Watermark:
        """The state of the store now."""
        with reading(self.engine) as connection:
            return watermark_of(connection)

    def entries(self, upto: int | None = None, *, superseded: bool = False) -> Iterator[Entry]:
        """All comparisons in the order they came, each with its judgements in the order they came.

        What is stored after the first entry was asked for is left out, and so is every comparison of which a text was
        erased. Memory stays bounded, and no transaction is open between two entries.

        Args:
            upto: number of the last judgement to read, as `watermark` gives it. Comparisons not judged by then are
                left out, so that the same number gives the same entries for ever.
            superseded: include judgements that later ones of the same comparison replaced.
        """
        for found in self._stored(upto):
            yield _entry(found, superseded=superseded)

    def judged(self, upto: int) -> Iterator[tuple[int, str]]:
        """Number and prompt key of every comparison that `entries` reads, in the order they came, without its texts.

        A comparison whose prompt was erased is among them; `prompts` leaves it out.
        """
        table, judgement, after = schema.comparison.c, schema.judgement.c, 0
        said = exists().where(judgement.comparison == table.id, judgement.seq <= upto)
        while True:
            with reading(self.engine) as connection:
                rows = connection.execute(READABLE.where(table.id > after, said)).all()
            yield from ((row.id, row.prompt) for row in rows)
            if len(rows) < VARIABLES:
                return
            after = rows[-1].id

    def prompts(self, keys: Sequence[str]) -> Iterator[tuple[int, Prompt]]:
        """Prompts with the place of their key, in the order given; those of which a turn was erased are left out."""
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            with reading(self.engine) as connection:
                found = prompts_by_key(connection, part)
            yield from ((start + k, found[key]) for k, key in enumerate(part) if key in found)

    def entries_of(self, numbers: Sequence[int], upto: int) -> list[Entry]:
        """Some comparisons as `entries` gives them, in the order of their numbers."""
        found: list[Stored] = []
        for start in range(0, len(numbers), CHUNK):
            wanted = COMPARISONS.where(schema.comparison.c.id.in_(numbers[start : start + CHUNK]))
            with reading(self.engine) as connection:
                found += assemble(connection, connection.execute(wanted).all(), upto)
        return [_entry(each) for each in sorted(found, key=lambda each: each.number)]

    def counts(self) -> dict[str, int]:
        """How many rows of each kind there are, judgements also by kind."""
        tables = {
            "prompts": schema.prompt,
            "comparisons": schema.comparison,
            "judgements": schema.judgement,
            "annotators": schema.annotator,
            "assignments": schema.split_assignment,
            "erasures": schema.tombstone,
        }
        kind = schema.judgement.c.kind
        with reading(self.engine) as connection:
            found = {name: number_of(connection, select(func.count()).select_from(t)) for name, t in tables.items()}
            kinds = connection.execute(select(kind, func.count()).group_by(kind).order_by(kind)).all()
        return found | {row[0]: row[1] for row in kinds}

    def verify_chain(self) -> None:
        """Read everything and hold it to its hashes: the chain of judgements, the texts, the comparisons.

        Raises:
            StoreError: a row was changed, moved or removed outside the store; the message names the first.
        """
        last = Watermark(0, FIRST_HASH)
        try:
            for row in self._rows(schema.judgement.c.seq):
                if (row["seq"], row["prev_hash"], row["hash"]) != (last.seq + 1, last.head, chain_hash(row)):
                    raise _broken(f"judgement {last.seq + 1}")
                last = Watermark(row["seq"], row["hash"])
            for row in self._rows(schema.text.c.digest):
                if row["body"] is not None and digest(row["body"]) != row["digest"]:
                    raise _broken(f"text {row['digest']}")
            for found in self._stored(None):
                if found.comparison.key != found.key:
                    raise _broken(f"comparison {found.key}")
        except ValueError as error:
            raise _broken(f"a row after judgement {last.seq} ({error})") from error

    def annotators(self) -> list[Annotator]:
        """Everybody who judged or wrote an answer, in the order they came."""
        who, judgement = schema.annotator.c, schema.judgement.c
        number = select(func.count()).where(judgement.annotator == who.id).scalar_subquery()
        wanted = select(who.handle, who.identity, who.group, number, who.erased_at).order_by(who.id)
        with reading(self.engine) as connection:
            rows = connection.execute(wanted).all()
        return [Annotator(handle, who or "", group or "", n, erased) for handle, who, group, n, erased in rows]

    def enrol(self, handle: str, *, identity: str = "", group: str = "") -> None:
        """Say who an annotator is (a name, an address) and which group they belong to; replaces what was said before.

        Raises:
            StoreError: the annotator was erased, or the database refused.
        """
        with writing(self.engine) as connection:
            number = people_of(connection, {handle})[handle]
            row = schema.annotator.c
            change = update(schema.annotator).where(row.id == number, row.erased_at.is_(None))
            if not connection.execute(change.values(identity=identity, group=group)).rowcount:
                raise StoreError(f"annotator {handle!r} was erased and stays so; enrol under another handle")

    def split_of(self, prompt_keys: Iterable[str]) -> dict[str, Split]:
        """The splits of those prompts that have one, by prompt key."""
        table = schema.split_assignment.c
        with reading(self.engine) as connection:
            return lookup(connection, table.prompt_key, table.split, set(prompt_keys))

    def assignments(self) -> Iterator[Assignment]:
        """All assignments, sorted by prompt key."""
        for row in self._rows(schema.split_assignment.c.prompt_key):
            yield Assignment(row["prompt_key"], row["cluster"], row["split"], bytes(row["signature"]))

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Put prompts into splits, for ever. Those already in that split stay as they are.

        Raises:
            StoreError: a prompt is in another split already; nothing of this call was stored.
        """
        left, table = iter(assignments), schema.split_assignment
        with writing(self.engine) as connection:
            seq = number_of(connection, select(func.max(table.c.seq)))
            while batch := list(islice(left, VARIABLES)):
                held = lookup(connection, table.c.prompt_key, table.c.split, {each.prompt_key for each in batch})
                rows: list[dict[str, Any]] = []
                for each in batch:
                    split = held.get(each.prompt_key)
                    if split is None:
                        held[each.prompt_key], seq = each.split, seq + 1
                        rows.append({**each._asdict(), "seq": seq})
                    elif split != each.split:
                        raise StoreError(
                            f"prompt {each.prompt_key}: got split {each.split!r}, but it is in {split!r} for ever; "
                            "nothing was assigned; assign the new prompts alone"
                        )
                insert_missing(connection, table, rows)

    def erase_text(self, *digests: str, reason: str) -> None:
        """Forget texts for ever: every answer, turn, rationale, edit or further fact with this wording.

        Comparisons that need one are no longer read; a judgement loses the words and keeps the opinion. The same
        text does not come back by a later import.

        Args:
            digests: `records.digest` of each text; for the further facts of a judgement, of their canonical JSON.
            reason: why, kept in the tombstone; must not repeat what is erased.

        Raises:
            StoreError: a text is unknown; nothing was erased.
        """
        table, wanted = schema.text, set(digests)
        with writing(self.engine) as connection:
            unknown = wanted - lookup(connection, table.c.digest, table.c.digest, wanted).keys()
            if unknown:
                raise StoreError(f"text {min(unknown)}: not in the store; nothing was erased; check the digest")
            lost = update(table).where(table.c.digest.in_(wanted), table.c.body.is_not(None)).values(body=None)
            gone = connection.execute(lost.returning(table.c.digest)).scalars().all()
            bury(connection, "text", sorted(gone), reason)
        forget_overwritten(self.engine)

    def erase_person(self, handle: str, *, reason: str) -> str:
        """Forget who an annotator is. What they said and did as a lead stays, under a pseudonym; their words go by `erase_text`.

        Nobody can log in as them any more.

        Args:
            handle: the annotator's handle.
            reason: why, kept in the tombstone; must not repeat what is erased.

        Returns:
            The pseudonym that stands for the annotator from now on.

        Raises:
            StoreError: the annotator is unknown; nothing was erased.
        """
        row = schema.annotator.c
        with writing(self.engine) as connection:
            number = lookup(connection, row.handle, row.id, {handle}).get(handle)
            if number is None:
                raise StoreError(f"annotator {handle!r}: not in the store; nothing was erased; check the handle")
            pseudonym = f"erased:{number}"
            values = {"handle": pseudonym, "identity": None, "group": None, "erased_at": now()}
            connection.execute(update(schema.annotator).where(row.id == number).values(values))
            call_otherwise(connection, handle, pseudonym)
            log_out_for_good(connection, number)
            bury(connection, "person", [pseudonym], reason)
        forget_overwritten(self.engine)
        return pseudonym

    def backup(self, path: Path) -> None:
        """Copy the store to a new file while it is in use. The copy is checked and complete once it has its name.

        Raises:
            StoreError: the file exists, the disk refused, or the store is not in SQLite.
        """
        backup(self.engine, path)

    def _rows(self, key: Column[Any]) -> Iterator[RowMapping]:
        """All rows of a table in the order of a unique column, in chunks, each in a transaction of its own."""
        wanted = select(key.table).order_by(key).limit(CHUNK)
        rows: Sequence[RowMapping] = ()
        while True:
            with reading(self.engine) as connection:
                rows = connection.execute(wanted.where(key > rows[-1][key]) if rows else wanted).mappings().all()
            yield from rows
            if len(rows) < CHUNK:
                return

    def _stored(self, upto: int | None) -> Iterator[Stored]:
        """Comparisons in the order they came, with keys as they were when stored."""
        with reading(self.engine) as connection:
            end = number_of(connection, select(func.max(schema.comparison.c.id)))
            until = watermark_of(connection).seq if upto is None else upto
        wanted, judgement = COMPARISONS.where(schema.comparison.c.id <= end), schema.judgement.c
        if upto is not None:
            wanted = wanted.where(exists().where(judgement.comparison == schema.comparison.c.id, judgement.seq <= upto))
        after = 0
        while True:
            with reading(self.engine) as connection:
                rows = connection.execute(wanted.where(schema.comparison.c.id > after)).all()
                found = assemble(connection, rows, until)
            yield from found
            if len(rows) < CHUNK:
                return
            after = rows[-1].id


def _first(items: Iterable[tuple[str, V]]) -> dict[str, V]:
    """The first of each key, as where they come one batch after the other."""
    found: dict[str, V] = {}
    for key, item in items:
        found.setdefault(key, item)
    return found


def _entry(found: Stored, *, superseded: bool = False) -> Entry:
    gone = set[str]() if superseded else {each.supersedes for _, each in found.judgements}
    return Entry(found.comparison, tuple(each for key, each in found.judgements if key not in gone))


def _broken(what: str) -> StoreError:
    return StoreError(
        f"{what}: not as it was stored; it was changed, moved or removed outside the store; keep a copy of the "
        "database and restore the latest backup that verifies"
    )
