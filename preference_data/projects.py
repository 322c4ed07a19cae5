"""Projects: items judged in one way by one guideline. Settings and guideline may change under way; each change is kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self, get_args

from sqlalchemy import Connection, Engine, bindparam, func, insert, select

from preference_data import queue_schema, schema
from preference_data.database import insert_missing, reading, writing
from preference_data.errors import QueueError
from preference_data.queries import number_of
from preference_data.records import digest, now

Mode = Literal["pairwise", "rating", "thumb", "ranking"]
MODES: tuple[Mode, ...] = get_args(Mode)
_SHARES = ("gold_share", "repeat_share", "pass_mark", "old_weight")
_LEAST = {
    "overlap": 1,
    "lease_s": 10,
    "skips_to_halt": 1,
    "repeat_after": 1,
    "daily_cap": 0,
    "scale": 2,
    "counts_from": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """How a project is judged.

    Attributes:
        overlap: people who judge each item, exactly.
        lease_s: seconds an item is kept for whoever was shown it.
        skips_to_halt: an item skipped by that many people is asked of nobody else.
        gold_share: share of showings that are items with a known answer, in [0, 1).
        repeat_share: share of showings that are a person's own earlier items, sides swapped, in [0, 1).
        repeat_after: showings between an item and its repeat, at least.
        pass_mark: share of the trial items a person must get right before the work begins, in [0, 1].
        daily_cap: most items a person is shown per day (UTC), 0 for no limit.
        dimensions: what is rated, with the mode `rating`.
        scale: highest rating; the lowest is 1.
        closed: nobody is shown anything more.
        counts_from: number of the project's first change whose guideline counts; judgements under earlier ones weigh
            `old_weight` at a freeze and, where that is 0, their items are asked again.
        old_weight: what judgements under a withdrawn guideline weigh, in [0, 1].
        warning: what people are told of the contents before they begin; answers are then blurred until asked for.
    """

    overlap: int = 1
    lease_s: int = 1800
    skips_to_halt: int = 3
    gold_share: float = 0.0
    repeat_share: float = 0.0
    repeat_after: int = 20
    pass_mark: float = 0.0
    daily_cap: int = 0
    dimensions: tuple[str, ...] = ()
    scale: int = 5
    closed: bool = False
    counts_from: int = 1
    old_weight: float = 1.0
    warning: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            QueueError: names the field, what it holds and what it may hold.
        """
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise QueueError(f"{name}: got {getattr(self, name)}; expected {least} or more")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise QueueError(f"{name}: got {getattr(self, name)}; expected a share from 0 to 1")
        if self.gold_share + self.repeat_share >= 1:
            raise QueueError(
                f"gold_share + repeat_share: got {self.gold_share} + {self.repeat_share}; expected less than 1, so that "
                "some showings are work"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values, as the database or a form gives them.

        Raises:
            QueueError: an unknown name, or a value out of range.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise QueueError(f"setting {unknown[0]!r}: unknown; expected one of {', '.join(sorted(known))}")
        plain: dict[str, Any] = {**values, "dimensions": tuple(values.get("dimensions", ()))}
        return cls(**plain)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """These with other values for some, as a person gives them.

        Raises:
            QueueError: an unknown name, or a value of another kind or out of range.
        """
        defaults: dict[str, object] = asdict(type(self)())
        for name, usual in defaults.items():
            kind = type(usual)
            if type(values.get(name, usual)) not in _TAKEN.get(kind, (kind,)):
                raise QueueError(f"{name}: got {values[name]!r}; expected a value such as {usual!r}")
        return self.of({**asdict(self), **values})


_TAKEN: Mapping[type, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}
"""Kinds of values that may be given where one of another is expected."""


class Project(NamedTuple):
    """A project as it stands.

    Attributes:
        number: position among all projects, from 1.
        change: number of its last change, from 1.
        guideline: its text as of that change.
        by, at: who changed it last, and when (UTC).
    """

    number: int
    name: str
    mode: Mode
    change: int
    settings: ProjectSettings
    guideline: str
    by: str
    at: datetime

    @property
    def since(self) -> int:
        """Number of the change from which on showings take places: those under a withdrawn guideline take none."""
        return 1 if self.settings.old_weight else self.settings.counts_from

    @property
    def label(self) -> str:
        """Name and change, as judgements record the guideline they were given under."""
        return f"{self.name}/{self.change}"


_CHANGE = queue_schema.project_change.alias()
_LAST = (
    select(func.max(_CHANGE.c.number)).where(_CHANGE.c.project == queue_schema.project.c.id).scalar_subquery()
)  # fmt: skip
_PROJECTS = (
    select(
        queue_schema.project.c.id,
        queue_schema.project.c.name,
        queue_schema.project.c.mode,
        queue_schema.project_change.c.number,
        queue_schema.project_change.c.settings,
        schema.text.c.body,
        queue_schema.project_change.c.by,
        queue_schema.project_change.c.at,
    )
    .join(queue_schema.project_change, queue_schema.project_change.c.project == queue_schema.project.c.id)
    .join(schema.text, schema.text.c.digest == queue_schema.project_change.c.guideline)
    .order_by(queue_schema.project.c.id)
)
_NEWEST = _PROJECTS.where(queue_schema.project_change.c.number == _LAST)
_NAMED = _NEWEST.where(queue_schema.project.c.name == bindparam("name"))
_NUMBERED = _NEWEST.where(queue_schema.project.c.id == bindparam("number"))


class Projects:
    """The projects of a store: `Projects(store.engine)`."""

    def __init__(self, engine: Engine) -> None:
        """Use the store's database."""
        self._engine = engine

    def create(
        self, name: str, mode: Mode, *, guideline: str, settings: ProjectSettings | None = None, by: str
    ) -> Project:
        """Begin a project. The same again changes nothing.

        Raises:
            QueueError: the name is taken by a project that differs, or a rating has no dimensions.
        """
        settings = settings or ProjectSettings()
        if mode not in MODES:
            raise QueueError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
        if not name.strip() or "/" in name:
            raise QueueError(f"project name {name!r}: expected some text without a slash")
        if mode == "rating" and not settings.dimensions:
            raise QueueError("dimensions: a rating has none; expected at least one, such as helpful")
        with writing(self._engine) as connection:
            found = find_project(connection, name)
            if found is None:
                number = number_of(connection, select(func.max(queue_schema.project.c.id))) + 1
                row = {"id": number, "name": name, "mode": mode, "by": by, "at": now()}
                connection.execute(insert(queue_schema.project), row)
                _add_change(connection, number, settings, guideline, by=by)
            elif (found.mode, found.settings, found.guideline) != (mode, settings, guideline):
                raise QueueError(f"project {name!r}: exists already and differs; change it, or give another name")
            return project_named(connection, name)

    def get(self, name: str) -> Project:
        """A project by its name.

        Raises:
            QueueError: there is none.
        """
        with reading(self._engine) as connection:
            return project_named(connection, name)

    def all(self) -> list[Project]:
        """All projects, in the order they were begun."""
        with reading(self._engine) as connection:
            rows = connection.execute(_NEWEST).all()
        return [_project(row) for row in rows]

    def guideline(self, name: str, change: int) -> str:
        """The guideline a project had from one of its changes on."""
        with reading(self._engine) as connection:
            wanted = (queue_schema.project.c.name == name, queue_schema.project_change.c.number == change)
            row = connection.execute(_PROJECTS.where(*wanted)).first()
        if row is None:
            raise QueueError(f"project {name!r}, change {change}: there is none; see the project's history")
        return _project(row).guideline


def change_project(
    connection: Connection, name: str, *, guideline: str | None, settings: ProjectSettings | None, by: str
) -> Project:
    """Give a project other settings or another guideline; what is None stays as it is.

    Raises:
        QueueError: there is no such project.
    """
    found = project_named(connection, name)
    wanted = (settings or found.settings, found.guideline if guideline is None else guideline)
    if wanted != (found.settings, found.guideline):
        _add_change(connection, found.number, *wanted, by=by)
    return project_named(connection, name)


def find_project(connection: Connection, name: str) -> Project | None:
    """A project by its name, None where there is none."""
    row = connection.execute(_NAMED, {"name": name}).first()
    return None if row is None else _project(row)


def project_numbered(connection: Connection, number: int) -> Project:
    """A project by its number, which an item knows."""
    return _project(connection.execute(_NUMBERED, {"number": number}).one())


def project_named(connection: Connection, name: str) -> Project:
    """A project by its name.

    Raises:
        QueueError: there is none; lists those there are.
    """
    found = find_project(connection, name)
    if found is None:
        names = connection.execute(select(queue_schema.project.c.name)).scalars().all()
        raise QueueError(f"project {name!r}: unknown; there are: {', '.join(names) or 'none yet'}")
    return found


def _project(row: Any) -> Project:
    return Project(row[0], row[1], row[2], row[3], ProjectSettings.of(row[4]), row[5] or "", row[6], row[7])


def _add_change(connection: Connection, project: int, settings: ProjectSettings, guideline: str, *, by: str) -> None:
    table = queue_schema.project_change
    number = number_of(connection, select(func.max(table.c.number)).where(table.c.project == project)) + 1
    insert_missing(connection, schema.text, [{"digest": digest(guideline), "body": guideline}])
    row = {"project": project, "number": number, "settings": asdict(settings), "guideline": digest(guideline)}
    connection.execute(insert(table), row | {"by": by, "at": now()})
