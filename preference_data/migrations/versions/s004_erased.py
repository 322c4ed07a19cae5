"""Whoever is erased is erased where they led, too: their name in what they did gives way to their pseudonym, and nothing else changes."""

from alembic import op

from preference_data.migrations.triggers import refuse

revision = "s004"
down_revision = "s003"
branch_labels = None
depends_on = None

_OTHERS = {
    "project": ("id", "name", "mode", "at"),
    "project_change": ("project", "number", "settings", "guideline", "at"),
    "item": ("id", "project", "comparison", "purpose", "priority", "draw", "strategy", "propensity", "at"),
    "note": ("id", "lease", "kind", "body", "at"),
    "audit": ("id", "action", "at"),
    "account_change": ("annotator", "number", "role", "state", "facts", "reason", "at"),
    "request": ("id", "key", "kind", "payload", "at"),
    "request_event": ("request", "number", "state", "message", "at"),
}
_ALSO_NAMED = {"audit": "facts", "item": "needs"}
"""Columns that may name somebody among other things."""


def upgrade() -> None:
    """Let a name become a pseudonym in tables that otherwise only grow."""
    for table, others in _OTHERS.items():
        where = "" if op.get_context().dialect.name == "sqlite" else f" ON {table}"
        op.execute(f"DROP TRIGGER {table}_refuses_update{where}")
        refuse(table, "UPDATE", f"NOT ({_erases(table)} AND {_same(others)})")


def _erases(table: str) -> str:
    by = """(NEW."by" <> OLD."by" AND NEW."by" LIKE '"erased:%"')"""
    if table not in _ALSO_NAMED:
        return by
    kept, named = """NEW."by" = OLD."by\"""", _ALSO_NAMED[table]
    within = f"""(NEW.{named} <> OLD.{named} AND NEW.{named} LIKE '%"erased:%')"""
    expected = " AND COALESCE(NEW.expected, '') = COALESCE(OLD.expected, '')" if table == "item" else ""
    return f"(({by} AND NEW.{named} = OLD.{named}) OR ({kept} AND {within})){expected}"


def _same(columns: tuple[str, ...]) -> str:
    return " AND ".join(f"NEW.{each} = OLD.{each}" for each in columns)
