"""Books: how many rows there should be, and which ids lost executions had."""

from pathlib import Path

from alembic import op

revision = "0006_books"
down_revision = "0005_tie_out"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0006_books.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0006_books counts rows from now on: restore a backup instead.")
