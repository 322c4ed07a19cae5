"""What is measured, counted; and the numbers computed from it.

Revision ID: s002
Revises: s001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "s002"
down_revision = "s001"
branch_labels = None
depends_on = None

NUMBER = sa.Double().with_variant(sa.REAL(), "sqlite")
SERIES = ("policy", "suite", "metric", "numerics")


def upgrade() -> None:
    """Make the tables, and count what is there."""
    _table("measured", _texts(*SERIES), sa.Column("n", sa.Integer, nullable=False), key=SERIES)
    key = ("policy", "numerics", "slice", "name", "suite")
    bounds = [sa.Column(name, NUMBER) for name in ("value", "low", "high")]
    _table("number", _texts(*key), *bounds, sa.Column("n", sa.Integer, nullable=False), *_texts("method"), key=key)
    _table("numbered", _texts("policy", "numerics", "stamp"), key=("policy", "numerics"))
    columns = ", ".join(SERIES)
    op.execute(f"INSERT INTO measured ({columns}, n) SELECT {columns}, count(*) FROM measurement GROUP BY {columns}")


def downgrade() -> None:
    """A ledger is not taken back.

    Raises:
        NotImplementedError: always; restore a backup instead.
    """
    raise NotImplementedError("a ledger is not taken back; restore the backup made before the upgrade")


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _table(name: str, first: list[sa.Column[Any]], *rest: sa.Column[Any], key: tuple[str, ...]) -> None:
    op.create_table(name, *first, *rest, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"), sqlite_strict=True)
