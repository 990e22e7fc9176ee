"""Idempotency: keys of requests, and the answers that are replayed."""

from pathlib import Path

from alembic import op

revision = "0007_idempotency"
down_revision = "0006_books"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0007_idempotency.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0007_idempotency keeps answers from now on: restore a backup.")
