"""Behind a real PgBouncer in transaction mode: each transaction may meet another server process
(design §5; `TORGHUT_DATABASE_POOLER=transaction`)."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from tests.chaos import FULL
from tests.chaos.cluster import OWNER, Node
from tests.chaos.load import Sender, faults
from tests.crash.answers import BY_NAME
from tests.crash.world import World
from tests.services.rig import eventually
from torghut.domain.errors import DatabaseUnavailable
from torghut.storage.database import Database
from torghut.storage.embedded_binaries import account_for

COUNT = 2_000 if FULL else 100
SERVERS_MAX = 4
PLACES = (None, "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer")  # it may be out of PATH

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def pooled_url(node: Node, folder: Path) -> Iterator[str]:
    """The node's database through a PgBouncer that has SERVERS_MAX connections for everybody."""
    program = next((found for place in PLACES if (found := shutil.which(place or "pgbouncer"))), "")
    assert program, "pgbouncer is missing: install the package pgbouncer"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"""[databases]
torghut = host=127.0.0.1 port={node.port} dbname=torghut user={OWNER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SERVERS_MAX}
max_client_conn = 500
"""
    )
    settings.chmod(0o644)
    account = account_for(folder / "node" / "data")
    as_other = {"user": account.uid, "group": account.gid} if account.switch else {}
    with (folder / "pgbouncer.log").open("wb") as log:
        pooler = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, **as_other)
    try:
        url = make_url(node.url).set(port=port)
        eventually(lambda: reachable(port) or pooler.poll() is not None)
        assert pooler.poll() is None, (folder / "pgbouncer.log").read_text()
        yield url.render_as_string(hide_password=False)
    finally:
        pooler.terminate()
        pooler.wait(10)


def reachable(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_replicas_share_a_few_connections(node: Node, pooled_url: str, tmp_path: Path) -> None:
    """P1, P2: more clients than server connections, and one POST for each decision."""
    with World(node.url, tmp_path, BY_NAME["accepted"], others=0) as world:
        for _ in range(2):
            world.start(TORGHUT_DATABASE_URL=pooled_url, TORGHUT_DATABASE_POOLER="transaction")
        sender = Sender(world, COUNT, batch=20)
        sender.start()
        sender.join(300)
        world.wait(world.settled, "all decisions terminal", 300)
        posts = world.requests()["posts_by_client_order_id"]
        assert {h: posts.get(h, 0) for h in sender.acknowledged} == dict.fromkeys(
            sender.acknowledged, 1
        )
        assert faults(world, sender) == []
        with world.database.transaction() as tx:
            servers = tx.execute(
                text("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'torghut%'")
            ).scalar_one()
        assert servers <= SERVERS_MAX + 2  # … and the test's own two


@pytest.mark.parametrize("pooled", [True, pytest.param(False, id="control")])
def test_what_the_setting_is_for(pooled_url: str, pooled: bool) -> None:
    """Control: without it a connection brings settings, which a pooler of this kind refuses; it
    would keep statements prepared that the next server process does not know."""
    database = Database(pooled_url, pool_size=16, pooled=pooled)

    def work(_: int) -> int:
        done = 0
        for _ in range(20):
            with database.transaction() as tx:
                done += tx.execute(text("SELECT pg_sleep(0.001), 1")).one()[1]
        return done

    try:
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(work, range(16))) == 320
    except (DatabaseUnavailable, DBAPIError) as error:
        assert not pooled
        assert "startup parameter" in str(error) or "prepared statement" in str(error)
    else:
        assert pooled
    finally:
        database.close()
