"""Trading states of strategies, the guard's cursor, requests to reload the limits."""

from pathlib import Path

from alembic import op

revision = "0002_control"
down_revision = "0001"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0002_control.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError(
        "schema 0002_control is not undone: halts of strategies would be lost, and trading would "
        "go on. Restore a backup instead."
    )
