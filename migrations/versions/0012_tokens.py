"""Bearer tokens of the HTTP interface, and the key of the console's cookies."""

from pathlib import Path

from alembic import op

revision = "0012_tokens"
down_revision = "0011_replicas"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0012_tokens.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0012_tokens knows who may do what: restore a backup instead.")
