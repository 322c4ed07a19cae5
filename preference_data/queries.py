"""Questions and insertions that `Store` puts together; each runs on a connection, inside the caller's transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Select,
    Text,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    type_coerce,
    update,
)

from preference_data import schema
from preference_data.database import insert_missing
from preference_data.queue_schema import account_change, audit, credential, item, note, project, project_change, session
from preference_data.records import Comparison, Judgement, Prompt, Written, now
from preference_data.rows import (
    FIRST_HASH,
    Texts,
    chain_hash,
    comparison_from,
    completion_rows,
    judgement_from,
    judgement_row,
    prompt_from,
    prompt_row,
    text_digests,
)

_LED = (project, project_change, item, note, audit, account_change, schema.request, schema.request_event)
"""Tables that say who did something, as a name."""
_NAMING = (audit.c.facts, item.c.needs)
"""Columns that may name people among other things."""
K = TypeVar("K", str, int)
CHUNK = 500
VARIABLES = 10_000


class Watermark(NamedTuple):
    """A state of the store: the number of the last judgement and the hash over all up to it."""

    seq: int
    head: str


class Stored(NamedTuple):
    """A comparison and all its judgements, with the keys they had when they were stored: erasing changes no key."""

    number: int
    key: str
    comparison: Comparison
    judgements: list[tuple[str, Judgement]]


COMPARISONS = (
    select(schema.comparison, schema.prompt.c.turns)
    .join(schema.prompt, schema.prompt.c.key == schema.comparison.c.prompt)
    .order_by(schema.comparison.c.id)
    .limit(CHUNK)
)
READABLE = (
    select(schema.comparison.c.id, schema.comparison.c.prompt)
    .where(
        ~exists().where(
            schema.completion.c.comparison == schema.comparison.c.id,
            schema.text.c.digest == schema.completion.c.text,
            schema.text.c.body.is_(None),
        )
    )
    .order_by(schema.comparison.c.id)
    .limit(VARIABLES)
)
"""Comparisons of which no answer was erased, with their prompts."""

_COMPLETIONS = (
    select(schema.completion, schema.annotator.c.handle, schema.text.c.body)
    .outerjoin(schema.annotator, schema.annotator.c.id == schema.completion.c.writer)
    .outerjoin(schema.text, schema.text.c.digest == schema.completion.c.text)
    .where(schema.completion.c.comparison.in_(bindparam("numbers", expanding=True)))
    .order_by(schema.completion.c.comparison, schema.completion.c.position)
)
_LAST_JUDGEMENT = (
    select(schema.judgement.c.seq, schema.judgement.c.hash).order_by(schema.judgement.c.seq.desc()).limit(1)
)
_JUDGEMENTS = (
    select(schema.judgement, schema.annotator.c.handle)
    .join(schema.annotator, schema.annotator.c.id == schema.judgement.c.annotator)
    .order_by(schema.judgement.c.seq)
)


def assemble(connection: Connection, rows: Sequence[Any], until: int) -> list[Stored]:
    """Records of some comparisons' rows, with the judgements up to a number."""
    numbers = [row.id for row in rows]
    judgement = schema.judgement.c
    parts = connection.execute(_COMPLETIONS, {"numbers": numbers}).all()
    about = _JUDGEMENTS.where(judgement.comparison.in_(numbers), judgement.seq <= until)
    said: Sequence[Any] = connection.execute(about).all() if until else []
    texts = _texts(connection, text_digests([row.turns for row in rows], said))
    found: list[Stored] = []
    answers, opinions = _by_comparison(parts), _by_comparison(said)
    for row in rows:
        comparison = comparison_from(row, answers.get(row.id, ()), texts)
        if comparison:
            judgements = [(each.key, judgement_from(each, row.key, texts)) for each in opinions.get(row.id, ())]
            found.append(Stored(row.id, row.key, comparison, judgements))
    return found


def prompts_by_key(connection: Connection, keys: Sequence[str]) -> dict[str, Prompt]:
    """Prompts of which no turn was erased."""
    turns = lookup(connection, schema.prompt.c.key, schema.prompt.c.turns, keys)
    texts = _texts(connection, text_digests(turns.values(), ()))
    return {key: prompt for key, own in turns.items() if (prompt := prompt_from(own, texts))}


def judgements_by_key(connection: Connection, keys: Iterable[str]) -> dict[str, Judgement]:
    """Judgements by the keys they were stored under."""
    wanted = _JUDGEMENTS.add_columns(schema.comparison.c.key.label("about")).join(
        schema.comparison, schema.comparison.c.id == schema.judgement.c.comparison
    )
    rows = connection.execute(wanted.where(schema.judgement.c.key.in_(sorted(set(keys))))).all()
    texts = _texts(connection, text_digests((), rows))
    return {row.key: judgement_from(row, row.about, texts) for row in rows}


def _texts(connection: Connection, digests: Iterable[str]) -> dict[str, str]:
    """The texts of some digests; without what was erased."""
    bodies = lookup(connection, schema.text.c.digest, schema.text.c.body, digests)
    return {name: body for name, body in bodies.items() if body is not None}


def log_out_for_good(connection: Connection, number: int) -> None:
    """Take an annotator's password and sessions away."""
    for table in (credential, session):
        connection.execute(delete(table).where(table.c.annotator == number))


def call_otherwise(connection: Connection, handle: str, pseudonym: str) -> None:
    """Have what somebody did as a lead, and what was done to them, name a pseudonym."""
    for table in _LED:
        connection.execute(update(table).where(table.c.by == handle).values(by=pseudonym))
    for column in _NAMING:
        known = type_coerce(column, Text).contains(schema.ascii_json(handle), autoescape=True)
        for number, named in connection.execute(select(column.table.c.id, column).where(known)).all():
            without = {name: pseudonym if value == handle else value for name, value in named.items()}
            if without != named:
                change = update(column.table).where(column.table.c.id == number)
                connection.execute(change.values({column: without}))


def judged_by_several(connection: Connection, upto: int, sources: Collection[str], count: int) -> list[int]:
    """Numbers of comparisons that more than one person judged, the first by key, which is a hash.

    Args:
        connection: to the store.
        upto: number of the last judgement that is looked at.
        sources: of the comparisons; all where empty.
        count: at most so many.
    """
    said, about = schema.judgement.c, schema.comparison.c
    wanted = (
        select(about.id)
        .join(schema.judgement, said.comparison == about.id)
        .where(said.seq <= upto, *([about.source.in_(sorted(sources))] if sources else []))
        .group_by(about.id, about.key)
        .having(func.count(said.annotator.distinct()) > 1)
        .order_by(about.key)
        .limit(count)
    )
    return list(connection.execute(wanted).scalars())


def _by_comparison(rows: Iterable[Any]) -> dict[int, list[Any]]:
    grouped: dict[int, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row.comparison, []).append(row)
    return grouped


def append(
    connection: Connection,
    comparisons: Mapping[str, Comparison],
    judgements: Mapping[str, Judgement],
    known: dict[str, int],
    *,
    people: Mapping[str, int] | None = None,
) -> None:
    """Insert what is new.

    Args:
        connection: inside a transaction.
        comparisons: by key.
        judgements: by key.
        known: numbers of the comparisons already there, by key; gains the new.
        people: numbers of the annotators, by handle; looked up where left out.
    """
    origins = [answer.origin for each in comparisons.values() for answer in each.completions]
    handles = {each.annotator for each in judgements.values()}
    writers = {origin.annotator for origin in origins if isinstance(origin, Written)}
    people = people_of(connection, handles | writers) if people is None else people
    texts, prompts = Texts(), dict[str, dict[str, Any]]()
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    first = number_of(connection, select(func.max(schema.comparison.c.id))) + 1 if comparisons else 1
    for number, (key, each) in enumerate(comparisons.items(), start=first):
        known[key], prompt = number, each.prompt.key
        prompts[prompt] = prompt_row(each.prompt, prompt, texts.remember)
        parts += completion_rows(each.completions, number, texts.remember, people)
        rows.append({"id": number, "key": key, "prompt": prompt, "source": each.source, "slices": dict(each.slices)})
    said = [
        judgement_row(each, key, texts.remember)
        | {"comparison": known[each.comparison], "annotator": people[each.annotator]}
        for key, each in judgements.items()
    ]
    _chain(said, watermark_of(connection))
    insert_missing(connection, schema.text, texts.rows())
    insert_missing(connection, schema.prompt, [row for _, row in sorted(prompts.items())])
    for table, new in ((schema.comparison, rows), (schema.completion, parts), (schema.judgement, said)):
        if new:
            connection.execute(insert(table), new)


def _chain(rows: Iterable[dict[str, Any]], last: Watermark) -> None:
    """Give judgements their numbers and hashes."""
    stored_at = now()
    for row in rows:
        row |= {"seq": last.seq + 1, "stored_at": stored_at, "prev_hash": last.head}
        row["hash"] = chain_hash(row)
        last = Watermark(row["seq"], row["hash"])


def people_of(connection: Connection, handles: set[str]) -> dict[str, int]:
    """The numbers of annotators by handle; new ones get one."""
    table = schema.annotator
    known = lookup(connection, table.c.handle, table.c.id, handles)
    if not handles - known.keys():
        return known
    first = number_of(connection, select(func.max(table.c.id))) + 1
    new = {handle: number for number, handle in enumerate(sorted(handles - known.keys()), start=first)}
    insert_missing(connection, table, [{"id": number, "handle": handle} for handle, number in new.items()])
    return known | new


def bury(connection: Connection, kind: str, subjects: Sequence[str], reason: str) -> None:
    """Append tombstones."""
    first, at = number_of(connection, select(func.max(schema.tombstone.c.id))) + 1, now()
    rows = [
        {"id": number, "kind": kind, "subject": subject, "reason": reason, "at": at}
        for number, subject in enumerate(subjects, start=first)
    ]
    insert_missing(connection, schema.tombstone, rows)


def watermark_of(connection: Connection) -> Watermark:
    """The state of the store."""
    last = connection.execute(_LAST_JUDGEMENT).first()
    return Watermark(last.seq, last.hash) if last else Watermark(0, FIRST_HASH)


def number_of(connection: Connection, query: Any) -> int:
    """The one number a query gives, 0 where it gives none."""
    return connection.execute(query).scalar() or 0


def lookup(connection: Connection, key: Column[Any], value: Column[Any], wanted: Iterable[K]) -> dict[K, Any]:
    """Values of those rows whose key is wanted, by key; in pieces, as databases bound the number of variables."""
    ordered, found = sorted(wanted), dict[K, Any]()
    for start in range(0, len(ordered), VARIABLES):
        piece = {"wanted": ordered[start : start + VARIABLES]}
        rows: Sequence[Any] = connection.execute(_looking_up(key, value), piece).all()
        found |= {row[0]: row[1] for row in rows}
    return found


@cache
def _looking_up(key: Column[Any], value: Column[Any]) -> Select[Any, Any]:
    return select(key, value).where(key.in_(bindparam("wanted", expanding=True)))
