"""Order management: actions on standing orders (cancel, replace) and flattenings."""

from pathlib import Path

from alembic import op

revision = "0003_orders"
down_revision = "0002_control"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0003_orders.sql"
    # straight to the driver: SQLAlchemy would read the % of RAISE as a placeholder
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError(
        "order_actions holds the client_order_ids of replacements: without them orders of ours "
        "would be taken for somebody else's. Restore a backup instead."
    )
