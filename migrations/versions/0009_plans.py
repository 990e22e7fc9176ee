"""Sagas, and the rebalance plans that run on them."""

from pathlib import Path

from alembic import op

revision = "0009_plans"
down_revision = "0008_outbox"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0009_plans.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0009_plans knows which plans were carried out: restore a backup.")
