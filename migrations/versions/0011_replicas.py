"""Replicas: which processes live, and which accounts each could own."""

from pathlib import Path

from alembic import op

revision = "0011_replicas"
down_revision = "0010_intake"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0011_replicas.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("DROP TABLE replicas")
