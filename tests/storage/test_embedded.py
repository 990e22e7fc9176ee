"""The embedded server: one per home, durable, healed after any kill, gone with its last user.

Real processes and the real, durable settings throughout; no mocks. Clients other than this test
are child interpreters (`Client`) that hold the server until their standard input ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from torghut.storage import (
    embedded,
    embedded_binaries,
    embedded_cluster,
    embedded_locks,
    embedded_process,
)

if sys.platform == "win32":
    pytest.skip("signals and sockets of POSIX", allow_module_level=True)

ROOT = os.geteuid() == 0
LINUX = sys.platform == "linux"
DEADLINE_S = 60
PROJECT = Path(__file__).resolve().parents[2]
CLIENT = """
import json, sys
from pathlib import Path
from torghut.storage import embedded
server = embedded.start(Path(sys.argv[1]))
print(json.dumps({"pid": server.pid, "url": server.libpq_url}), flush=True)
if sys.stdin.read() == "stop":
    embedded.stop(Path(sys.argv[1]))
"""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        threading.Event().wait(0.02)


def gone(home: Path) -> bool:
    cluster = embedded_cluster.locate(home)
    with embedded_locks.acquire(cluster.start_lock):
        return embedded_process.server_is_gone(cluster.server_lock, cluster.data_dir)


def dead(pid: int) -> bool:
    """True when `pid` runs no more (a zombie does not run)."""
    if not LINUX:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class Client:
    """Another process using the server of `home`."""

    def __init__(self, home: Path, python: str = sys.executable, **options: object) -> None:
        search = os.pathsep.join([str(PROJECT), *(p for p in sys.path if "site-packages" in p)])
        self.process = subprocess.Popen(
            [python, "-c", CLIENT, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.defpath, "PYTHONPATH": search, "TZ": "Mars/Olympus"},
            **options,  # type: ignore[call-overload]
        )

    def server(self) -> dict[str, str]:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        answer: dict[str, str] = json.loads(line)
        return answer

    def leave(self, word: str = "") -> None:
        self.process.communicate(word, timeout=DEADLINE_S)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's account can reach (pytest's own are 0700)."""
    folder = Path(tempfile.mkdtemp(prefix="torghut-embedded-"))
    folder.chmod(0o711)
    yield folder
    for pg in [*folder.glob("*/pg"), *folder.glob("*/*/pg")]:
        with suppress(embedded.EmbeddedError):
            embedded.stop(pg.parent)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(place: Path) -> Path:
    return place / "home"


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A stopped home with an initialised cluster, to copy instead of running initdb again."""
    folder = Path(tempfile.mkdtemp(prefix="torghut-prepared-"))
    folder.chmod(0o711)
    embedded.start(folder / "home")
    embedded.stop(folder / "home")
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


def copy_cluster(source: Path, target: Path) -> None:
    """Copy a stopped cluster, owners included."""
    embedded_binaries.make_folder(target / "pg")
    subprocess.run(["cp", "-a", source / "pg" / "data", target / "pg"], check=True)


@pytest.fixture
def used_home(home: Path, prepared: Path) -> Path:
    """A home whose cluster exists and is stopped."""
    copy_cluster(prepared, home)
    return home


def ask(server: embedded.EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.libpq_url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def test_a_new_home_gets_a_durable_server_and_stop_ends_it(home: Path) -> None:
    server = embedded.start(home, database="my \"odd\" 'name'")
    for setting, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "autovacuum": "on",
        "logging_collector": "on",
    }.items():
        assert ask(server, f"SELECT current_setting('{setting}')") == value
    assert ask(server, "SELECT current_database()") == "my \"odd\" 'name'"
    assert server.data_dir.stat().st_mode & 0o077 == 0
    assert server.url.startswith("postgresql+psycopg://")
    assert server.url not in repr(server)
    assert embedded.start(home, database="second").pid == server.pid
    embedded.stop(home)
    assert dead(server.pid) and gone(home)
    embedded.stop(home)
    if LINUX:
        with pytest.raises(AssertionError, match="no reaper"):
            reaper_of(home)


def test_durability_cannot_be_switched_off_from_inside(used_home: Path) -> None:
    server = embedded.start(used_home)
    ask(server, "ALTER SYSTEM SET fsync = off")
    embedded.stop(used_home)
    assert ask(embedded.start(used_home), "SELECT current_setting('fsync')") == "on"


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_server_and_backends_inherit_no_lock_but_their_own(used_home: Path) -> None:
    server = embedded.start(used_home)
    with psycopg.connect(server.libpq_url) as connection:
        for pid in (server.pid, connection.info.backend_pid):
            held = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
            assert {path.name for path in held if path.suffix == ".lock"} == {"server.lock"}


def test_kill_of_the_postmaster_under_load_loses_no_acknowledged_row(used_home: Path) -> None:
    server = embedded.start(used_home)
    ask(server, "CREATE TABLE n (v int PRIMARY KEY)")
    acknowledged: list[list[int]] = [[], []]
    enough = threading.Event()

    def write(worker: int) -> None:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(server.libpq_url, autocommit=True) as connection,
        ):
            for value in range(worker, 1_000_000, 2):
                connection.execute("INSERT INTO n VALUES (%s)", (value,))
                acknowledged[worker].append(value)
                if len(acknowledged[worker]) > 100:
                    enough.set()

    writers = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
    for writer in writers:
        writer.start()
    assert enough.wait(DEADLINE_S)
    os.kill(server.pid, signal.SIGKILL)
    again = embedded.start(used_home)
    for writer in writers:
        writer.join(DEADLINE_S)
    assert again.pid != server.pid
    with psycopg.connect(again.libpq_url) as connection:
        kept = {row[0] for row in connection.execute("SELECT v FROM n")}
    assert set(acknowledged[0]) | set(acknowledged[1]) <= kept


def test_children_of_a_killed_postmaster_are_outwaited(used_home: Path) -> None:
    server = embedded.start(used_home)
    with psycopg.connect(server.libpq_url) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # cannot notice that its postmaster died
        os.kill(server.pid, signal.SIGKILL)
        threading.Timer(0.3, os.kill, (backend, signal.SIGCONT)).start()
        again = embedded.start(used_home)
        assert dead(backend)
        assert ask(again, "SELECT 1") == 1


@pytest.mark.skipif(not LINUX, reason="finds the children in /proc")
def test_a_busy_child_of_a_killed_postmaster_is_ended(used_home: Path) -> None:
    server = embedded.start(used_home)
    connection = psycopg.connect(server.libpq_url, autocommit=True)
    backend = connection.info.backend_pid

    def spin() -> None:
        with suppress(psycopg.Error):
            connection.execute("DO $$ BEGIN LOOP END LOOP; END $$")

    busy = threading.Thread(target=spin)
    busy.start()
    with psycopg.connect(server.libpq_url, autocommit=True) as other:
        active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        eventually(
            lambda: other.execute(active, (backend,)).fetchone() == (1,), "the loop is running"
        )
    os.kill(server.pid, signal.SIGKILL)
    assert ask(embedded.start(used_home), "SELECT 1") == 1
    assert dead(backend)
    busy.join(DEADLINE_S)
    connection.close()


def test_kill_of_the_client_leads_the_reaper_to_stop_the_server(used_home: Path) -> None:
    client = Client(used_home)
    pid = int(client.server()["pid"])
    client.kill()
    eventually(lambda: gone(used_home), "the server of a killed client is stopped")
    assert dead(pid)
    log = embedded_process.log_tail(*embedded_process.log_files(used_home / "pg" / "data"))
    assert "database system is shut down" in log


def test_a_client_that_just_exits_leads_the_reaper_to_stop_the_server(used_home: Path) -> None:
    client = Client(used_home)
    client.server()
    client.leave()
    eventually(lambda: gone(used_home), "the server without users is stopped")


@pytest.mark.skipif(not LINUX, reason="finds the reaper in /proc")
def test_kill_of_everything_then_start_recovers(used_home: Path) -> None:
    client = Client(used_home)
    first = client.server()
    with psycopg.connect(first["url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS v")
    for pid in (reaper_of(used_home), client.process.pid, int(first["pid"])):
        os.kill(pid, signal.SIGKILL)
    client.process.communicate()
    server = embedded.start(used_home)
    assert ask(server, "SELECT v FROM kept") == 42
    assert not dead(reaper_of(used_home))


def reaper_of(home: Path) -> int:
    marker = b"torghut.storage.embedded_reaper\0" + os.fsencode(home / "pg")
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if marker in found.read_bytes():
                return int(found.parent.name)
    raise AssertionError("no reaper")


@pytest.mark.skipif(not LINUX, reason="finds the reaper in /proc")
def test_a_killed_reaper_is_replaced_at_the_next_start(used_home: Path) -> None:
    embedded.start(used_home)
    first = reaper_of(used_home)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: dead(first), "the reaper is dead")
    embedded.start(used_home)
    assert reaper_of(used_home) != first


def test_two_processes_share_and_the_last_one_stops_it(used_home: Path) -> None:
    first, second = Client(used_home), Client(used_home)
    pid = first.server()["pid"]
    assert second.server()["pid"] == pid
    first.leave("stop")
    assert not gone(used_home)
    server = embedded.start(used_home)
    assert str(server.pid) == str(pid)
    second.kill()
    assert ask(server, "SELECT 1") == 1
    embedded.stop(used_home)
    assert gone(used_home)


def test_many_processes_start_a_new_home_at_once(home: Path) -> None:
    clients = [Client(home) for _ in range(4)]
    assert len({client.server()["pid"] for client in clients}) == 1
    for client in clients:
        client.leave("stop")
    assert gone(home)


def test_two_homes_have_two_servers(used_home: Path, place: Path) -> None:
    copy_cluster(used_home, place / "other")
    one, two = embedded.start(used_home), embedded.start(place / "other")
    ask(one, "CREATE TABLE only_in_one (n int)")
    assert one.pid != two.pid
    assert ask(two, "SELECT to_regclass('only_in_one') IS NULL") is True
    embedded.stop(used_home)
    assert ask(two, "SELECT 1") == 1


def zombie() -> int:
    """A pid that exists and runs nothing: an ended child that nobody has waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


@pytest.mark.parametrize("stale", ["dead", "unrelated", "zombie", "empty", "torn"])
def test_a_stale_pid_file_is_healed(used_home: Path, stale: str) -> None:
    data = used_home / "pg" / "data"
    server = embedded.start(used_home)
    as_running = (data / "postmaster.pid").read_text().split("\n")
    embedded.stop(used_home)
    ended = zombie()
    first = {"dead": server.pid, "unrelated": os.getpid(), "zombie": ended}.get(stale, 0)
    text = "\n".join([str(first), *as_running[1:]])
    path = data / "postmaster.pid"
    path.write_text({"empty": "", "torn": "12"}.get(stale, text))
    os.chown(path, data.stat().st_uid, data.stat().st_gid)
    socket_dir = embedded_cluster.prepare_socket_dir(embedded_cluster.locate(used_home))
    (socket_dir / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n")
    (socket_dir / ".s.PGSQL.5432").write_text("")
    assert ask(embedded.start(used_home), "SELECT 1") == 1
    os.waitpid(ended, 0)


def test_a_half_made_cluster_is_made_again(home: Path) -> None:
    half = home / "pg" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (home / "pg").chmod(0o711)
    home.chmod(0o711)
    assert ask(embedded.start(home), "SELECT 1") == 1
    assert not half.exists()


def test_a_client_killed_during_initdb_does_no_harm(home: Path) -> None:
    client = Client(home)
    eventually(lambda: (home / "pg" / "data.new" / "global").exists(), "initdb is at work")
    client.kill()
    assert ask(embedded.start(home), "SELECT 1") == 1


def test_another_major_version_is_named(used_home: Path) -> None:
    (used_home / "pg" / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(embedded.EmbeddedError, match=r"PostgreSQL 14.*PostgreSQL 18.*pg_dump"):
        embedded.start(used_home)
    assert gone(used_home)


def test_a_foreign_folder_is_not_touched(home: Path) -> None:
    (home / "pg" / "data").mkdir(parents=True)
    (home / "pg" / "data" / "diary.txt").write_text("mine")
    with pytest.raises(embedded.EmbeddedError, match="not a PostgreSQL data directory"):
        embedded.start(home)
    assert (home / "pg" / "data" / "diary.txt").read_text() == "mine"


def test_a_server_that_cannot_start_shows_its_log(used_home: Path) -> None:
    with (used_home / "pg" / "data" / "postgresql.conf").open("a") as file:
        file.write("\nshared_buffers = 'plenty'\n")
    with pytest.raises(embedded.EmbeddedError, match="shared_buffers"):
        embedded.start(used_home)


def test_a_home_that_is_a_file_gets_a_clear_error(place: Path) -> None:
    (place / "home").write_text("")
    with pytest.raises(embedded.EmbeddedError, match="TORGHUT_HOME"):
        embedded.start(place / "home")


@pytest.mark.parametrize(
    "name",
    ["with space", 'it\'s "quoted"', "$HOME `id` \\ %s;#&", "größe-日本-🐘", "comma,colon:at@"],
)
def test_odd_home_paths(place: Path, name: str, prepared: Path) -> None:
    server = embedded.start(place / name)
    assert ask(server, "SELECT 1") == 1
    embedded.stop(place / name)
    assert not (place / name / "pg" / "run").exists()


def test_a_home_path_longer_than_postgres_can_take(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_cluster, "ROOT_STATE", place / "state")
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "state"))
    deep = place.joinpath(*["d" * 200] * 6)
    server = embedded.start(deep)
    assert ask(server, "SELECT 1") == 1
    assert server.data_dir.is_relative_to(place / "state")
    embedded.stop(deep)


def test_interrupt_of_the_clients_group_does_not_reach_the_server(used_home: Path) -> None:
    client = Client(used_home, start_new_session=True)
    server = embedded.start(used_home)
    assert int(client.server()["pid"]) == server.pid
    os.killpg(client.process.pid, signal.SIGINT)
    client.process.communicate(timeout=DEADLINE_S)
    assert ask(server, "SELECT 1") == 1


def test_programs_out_of_a_shells_reach_are_copied(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_binaries, "ROOT_STATE", place / "state")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "state"))
    wheel = embedded_binaries.bundled().folder.parents[1]
    private = place / 'a "$HOME"'
    shutil.copytree(
        wheel / "pginstall18",
        private / wheel.name / "pginstall18",
        ignore=shutil.ignore_patterns("include", "*.a"),
    )
    if wheel.with_name(f"{wheel.name}.libs").is_dir():
        shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), private / f"{wheel.name}.libs")
    private.chmod(0o700)
    server = embedded.start(place / "home", bin_dir=private / wheel.name / "pginstall18" / "bin")
    assert ask(server, "SELECT 1") == 1
    if LINUX:
        assert Path(f"/proc/{server.pid}/exe").resolve().is_relative_to(place / "state")


def test_waiting_lasts_as_long_as_the_log_grows(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = place / "log" / "server-Mon.log"
    log.parent.mkdir()
    log.write_text("")
    now = [0.0]
    monkeypatch.setattr(embedded_process.time, "monotonic", lambda: now[0])
    told: list[float] = []

    def progress(waiting_for: str, waited_s: float) -> None:
        told.append(waited_s)
        if len(told) < 60:
            with log.open("a") as file:
                file.write("redo in progress\n")

    patience = embedded_process.Patience(10, place, progress)
    with pytest.raises(embedded.EmbeddedError, match="no progress for 10 s") as caught:
        for _ in range(200):
            now[0] += 1
            patience.pause("recovery")
    assert len(told) > 65
    assert "redo in progress" in str(caught.value)


@pytest.mark.skipif(not ROOT, reason="needs root to become another user")
def test_a_normal_user_can_do_it_too(place: Path) -> None:
    python = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/bin:/usr/local/bin")
    if python is None or not os.access(PROJECT, os.R_OK):
        pytest.skip("no interpreter of this version that a normal user can run")
    place.chmod(0o777)
    client = Client(place / "home", python=python, user=65534, group=65534, extra_groups=[])
    server = client.server()
    assert Path(f"/proc/{server['pid']}").stat().st_uid == 65534
    client.leave("stop")
    assert dead(int(server["pid"]))


@pytest.mark.skipif(not ROOT, reason="as a normal user no account switch happens")
def test_a_home_out_of_the_servers_reach_keeps_its_data_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_cluster, "ROOT_STATE", place / "state")
    (place / "private").mkdir(mode=0o700)
    home = place / "private" / "home"
    server = embedded.start(home)
    ask(server, "CREATE TABLE kept AS SELECT 42 AS v")
    assert server.data_dir.is_relative_to(place / "state")
    embedded.stop(home)
    (place / "private").chmod(0o755)
    assert ask(embedded.start(home), "SELECT v FROM kept") == 42
    embedded.stop(home)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_a_backup_restored_by_root_is_handed_to_the_server(used_home: Path) -> None:
    data = used_home / "pg" / "data"
    for path in (data, *data.rglob("*")):
        os.chown(path, 0, 0)
    assert ask(embedded.start(used_home), "SELECT 1") == 1


def test_sqlalchemy_takes_the_address(place: Path) -> None:
    home = place / "with space"
    engine = create_engine(embedded.start(home).url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_database()")).scalar() == "torghut"
    engine.dispose()


@pytest.mark.skipif(not ROOT, reason="needs root to make another user's folder")
def test_a_socket_folder_of_somebody_else_is_refused(used_home: Path) -> None:
    (used_home / "pg" / "run").mkdir()
    os.chown(used_home / "pg" / "run", 12345, 12345)
    with pytest.raises(embedded.EmbeddedError, match="belongs to somebody else"):
        embedded.start(used_home)


@pytest.mark.skipif(not ROOT, reason="needs root to become another user")
def test_another_user_cannot_connect(used_home: Path) -> None:
    server = embedded.start(used_home)
    tried = subprocess.run(
        [embedded_binaries.bundled().program("psql"), server.libpq_url, "-c", "SELECT 1"],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert tried.returncode != 0
    assert "Permission denied" in tried.stderr
