"""Triggers that keep tables append-only, for every step that makes such tables."""

from alembic import op


def refuse(table: str, change: str, when: str = "TRUE") -> None:
    """Refuse an UPDATE or DELETE of the rows a condition holds for. On PostgreSQL `refuse_change()` must exist."""
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER {table}_refuses_{change.lower()} BEFORE {change} ON {table} WHEN {when} "
            f"BEGIN SELECT RAISE(ABORT, '{table} only grows: {change} refused'); END"
        )
        return
    op.execute(
        f"CREATE TRIGGER {table}_refuses_{change.lower()} BEFORE {change} ON {table} FOR EACH ROW WHEN ({when}) "
        "EXECUTE FUNCTION refuse_change()"
    )
    if change == "DELETE":
        op.execute(
            f"CREATE TRIGGER {table}_refuses_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()"
        )
