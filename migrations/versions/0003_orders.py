"""Order management: actions on standing orders (cancel, replace) and flattenings."""

from pathlib import Path

from alembic import op

from torghut.storage.online import build_indexes

revision = "0003_orders"
down_revision = "0002_control"

# the successor of an order that was replaced
INDEXES = {"executions_replaces": "executions (replaces) WHERE replaces IS NOT NULL"}


def upgrade() -> None:
    build_indexes(op.get_context(), INDEXES)
    sql = Path(__file__).parent.parent / "sql" / "0003_orders.sql"
    # straight to the driver: SQLAlchemy would read the % of RAISE as a placeholder
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError(
        "order_actions holds the client_order_ids of replacements: without them orders of ours "
        "would be taken for somebody else's. Restore a backup instead."
    )
