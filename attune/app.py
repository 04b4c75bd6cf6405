"""The server, wired: what it needs before it can run, and in which order it starts and stops."""

import gc
import ipaddress
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import anyio
import orjson
import structlog
from starlette.applications import Starlette

from attune.access.identities import Identities
from attune.access.tokens import Tokens, signing_key
from attune.api import listening
from attune.api.authentication import Gate
from attune.api.routes.auth import AuthRoutes
from attune.api.routes.bus import BusRoutes
from attune.api.routes.catalog import CatalogRoutes
from attune.api.routes.dead_letters import DeadLetterRoutes
from attune.api.routes.description import described
from attune.api.routes.doctor import DoctorRoutes
from attune.api.routes.enforcements import EnforcementRoutes
from attune.api.routes.events import EventRoutes
from attune.api.routes.executions import ExecutionRoutes
from attune.api.routes.explain import ExplainRoutes
from attune.api.routes.health import Check, HealthRoutes
from attune.api.routes.identities import IdentityRoutes
from attune.api.routes.inquiries import InquiryRoutes
from attune.api.routes.metrics import MetricsRoutes
from attune.api.routes.rules import RuleRoutes
from attune.api.routes.space import SpaceRoutes
from attune.api.routes.streams import StreamRoutes
from attune.api.routes.system import About, SystemRoutes
from attune.api.routes.timers import TimerRoutes
from attune.api.server import Api
from attune.api.sockets import live_socket
from attune.base.clock import Clock, SystemClock
from attune.base.errors import StartError, plain_errors
from attune.base.installation import Installation
from attune.bus.topology import TOPOLOGY, Topology
from attune.database import migrate
from attune.database.compact import Shrunk, compact
from attune.database.connecting import check_version, embedded_url, psql_environment
from attune.database.embedded import Cluster, find_binaries
from attune.database.ids import uuid7
from attune.database.ownership import Ownership
from attune.database.pool import Database, DatabaseUnavailable
from attune.database.storage import Free, Storage, free_bytes
from attune.engine import Engine
from attune.executions import queries as executions
from attune.live.views import LiveViews
from attune.settings import Settings
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages
from attune.upkeep.data_directory import DataDirectory
from attune.upkeep.recovery import Predecessor
from attune.workers.environment import Surroundings
from attune.workers.guard import Guard, end_leftovers
from attune.workers.logs import Logs

log = structlog.get_logger()

DEMO_RULE = "hello.every_ten_seconds"
WORKER_NAME = "local"

_STOP_DATABASE = 20.0
_COLLECT_AFTER = 20_000
"""Objects, beyond those that have gone: then the youngest are looked at. Python would after 700, which the pipelines
that are under way are many times over."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that runs."""

    about: About
    engine: Engine
    settings: Settings


@dataclass(frozen=True, slots=True)
class Reached:
    """A database that answers. `psql` are the variables with which psql finds it, `program` that psql."""

    url: str
    psql: Mapping[str, str]
    program: str
    description: str


@asynccontextmanager
async def serving(
    settings: Settings,
    installation: Installation,
    *,
    demo: bool = False,
    clock: Clock | None = None,
    topology: Topology = TOPOLOGY,
    stages: Stages | None = None,
    instruments: Instruments | None = None,
    free: Free = free_bytes,
) -> AsyncIterator[Serving]:
    """Run a server for the block. Raises StartError saying what keeps it from starting."""
    clock = clock or SystemClock()
    anonymous = demo or settings.auth.anonymous == "read"
    if anonymous and not _is_loopback(settings.server.host):
        raise StartError(
            f"Anonymous reading is on ({'--demo' if demo else 'auth.anonymous'}), and server.host is "
            f"{settings.server.host}: that would let everybody read. Listen on 127.0.0.1, or switch it off."
        )
    if is_exposed(settings):
        log.warning(
            "plain HTTP where others reach it: who is on the way reads passwords and tokens. Let a proxy speak TLS and "
            "set server.public_url; docs/deploy/README.md shows how",
            host=settings.server.host,
        )
    boot = uuid7()
    stages = stages or Stages(visible=demo, debug=settings.log.level == "debug")
    instruments = instruments or Instruments()
    with plain_errors(), _held(installation) as directory, _bound(settings, installation) as (tcp, file):
        url = listening.address_of(tcp)
        directory.name_holder(url)
        async with (
            _guarded(installation, boot) as predecessor,
            _database(settings, installation) as reached,
            _owned(reached, f"{os.getpid()}@{socket.gethostname()} {url}", clock) as ownership,
            _pool(reached, settings) as database,
        ):
            engine = await _engine(
                database,
                settings,
                installation,
                clock,
                topology,
                stages,
                instruments,
                ownership,
                boot,
                url,
                demo,
                predecessor,
                Storage(_directories(settings, installation), settings.storage.min_free, clock, free),
            )
            about = About(
                url=url,
                pid=os.getpid(),
                data=str(installation.data),
                database=reached.description,
                started_at=clock.now(),
                demo=demo,
                anonymous="read" if anonymous else "off",
            )
            with _described(installation, about, reached):
                application = await _application(engine, about, settings, installation, clock, ownership)
                async with engine.running(), _answering(application, engine.live, settings, tcp, file):
                    yield Serving(about, engine, settings)


def spare_collections() -> None:
    """Let the garbage collector leave alone what this process holds now, and look at the rest less often: for one that
    does nothing but serve. Looking at all that a server holds stops it for 150 ms, and happened every few seconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


@asynccontextmanager
async def offline(settings: Settings, installation: Installation) -> AsyncIterator[str]:
    """The URL of the database of an installation, which nobody else uses during the block.

    Raises StartError when there is none, and one that names whoever has it.
    """
    # What may not be looked at is refused below.
    with suppress(PermissionError):
        if not installation.data.exists() or not (settings.database.url or installation.postgres.exists()):
            raise StartError(f"No server has run in {installation.data} so far: there is nothing to work on.")
    name = f"{os.getpid()}@{socket.gethostname()}"
    with plain_errors(), _held(installation) as directory:
        directory.name_holder(None)
        async with _database(settings, installation) as reached, _owned(reached, name, SystemClock()):
            yield reached.url


async def compacted(settings: Settings, installation: Installation, say: Callable[[str], None]) -> dict[str, Shrunk]:
    """What each table took before it was made as small as it can be, and what it takes now."""
    async with offline(settings, installation) as url:
        free = None if settings.database.url else shutil.disk_usage(installation.postgres).free
        return await compact(url, free, say)


def is_exposed(settings: Settings) -> bool:
    """Whether passwords and tokens come over a network as they are."""
    return not _is_loopback(settings.server.host) and not settings.server.public_url.startswith("https:")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _held(installation: Installation) -> Iterator[DataDirectory]:
    directory = DataDirectory(installation)
    directory.acquire()
    try:
        yield directory
    finally:
        directory.release()


@contextmanager
def _bound(settings: Settings, installation: Installation) -> Iterator[tuple[socket.socket, socket.socket]]:
    # Before the database is made: a port that is taken should not cost anybody a wait.
    with (
        listening.bind_tcp(settings.server.host, settings.server.port) as tcp,
        listening.bind_file(installation.socket) as file,
    ):
        try:
            yield tcp, file
        finally:
            installation.socket.unlink(missing_ok=True)


@asynccontextmanager
async def _guarded(installation: Installation, boot: UUID) -> AsyncIterator[Predecessor | None]:
    """Watch over the children of this run for the block; the run before, if it did not end cleanly, whose children have
    ended now."""
    left = _note_boot(installation.boot, boot)
    predecessor = None if left is None else Predecessor(left, tuple(await end_leftovers(left)))
    guard = Guard(str(boot))
    await guard.start()
    try:
        yield predecessor
    finally:
        with anyio.CancelScope(shield=True):
            await guard.dismiss()
        installation.boot.unlink(missing_ok=True)


def _note_boot(path: Path, boot: UUID) -> str | None:
    """Write down which boot runs now; the one before, if it did not end cleanly."""
    left = path.read_text().strip() if path.exists() else None
    path.write_text(f"{boot}\n")
    return left


@asynccontextmanager
async def _database(settings: Settings, installation: Installation) -> AsyncIterator[Reached]:
    configured = Path(settings.database.binaries) if settings.database.binaries else None
    if settings.database.url:
        url = settings.database.url
        psql = psql_environment(url)
        where = f"{psql.get('PGDATABASE', '')} on {psql.get('PGHOST', 'this machine')}"
        yield Reached(url, psql, _psql_program(configured), where)
        return
    binaries = find_binaries(configured)
    cluster = Cluster(installation.postgres, binaries, run_as=settings.database.user or None)
    await cluster.start()
    try:
        async with anyio.create_task_group() as supervision:
            supervision.start_soon(cluster.supervise)
            environment = cluster.environment()
            yield Reached(
                embedded_url(environment),
                environment,
                str(cluster.binaries.program("psql")),
                f"PostgreSQL {binaries.version}, socket in {cluster.socket_directory}",
            )
            supervision.cancel_scope.cancel()
    finally:
        await cluster.stop(_STOP_DATABASE)


def _psql_program(configured: Path | None) -> str:
    try:
        return str(find_binaries(configured).program("psql"))
    except StartError:
        return "psql"


@asynccontextmanager
async def _owned(reached: Reached, name: str, clock: Clock) -> AsyncIterator[Ownership]:
    ownership = Ownership(reached.url, name, clock)
    await ownership.acquire()
    try:
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(ownership.keep)
            yield ownership
            keeping.cancel_scope.cancel()
    finally:
        await ownership.release()


@asynccontextmanager
async def _pool(reached: Reached, settings: Settings) -> AsyncIterator[Database]:
    database = Database(
        reached.url, max_connections=settings.database.max_connections, is_remote=bool(settings.database.url)
    )
    try:
        await database.connect()
        async with database.acquire() as connection:
            await check_version(connection)
            await migrate.migrate(connection, migrate.read(migrate.directory()))
    except DatabaseUnavailable as error:
        raise StartError(str(error)) from error
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.disconnect()


async def _engine(
    database: Database,
    settings: Settings,
    installation: Installation,
    clock: Clock,
    topology: Topology,
    stages: Stages,
    instruments: Instruments,
    ownership: Ownership,
    boot: UUID,
    url: str,
    demo: bool,
    predecessor: Predecessor | None,
    storage: Storage,
) -> Engine:
    async with database.acquire() as connection:
        worker = await executions.register_worker(connection, WORKER_NAME, socket.gethostname(), boot, clock.now())
    engine = Engine(
        database=database,
        settings=settings,
        clock=clock,
        topology=topology,
        stages=stages,
        instruments=instruments,
        worker_id=worker,
        surroundings=Surroundings(
            boot=str(boot),
            api_url=url,
            artifacts_directory=installation.artifacts,
            environments_directory=installation.environments,
            pass_env=tuple(settings.worker.pass_env),
        ),
        logs=Logs(installation.execution_logs),
        ownership=ownership,
        storage=storage,
    )
    await engine.prepare(_bundled(), _watched(settings, installation), predecessor)
    await engine.switch_rule(DEMO_RULE, enabled=demo)
    return engine


def _directories(settings: Settings, installation: Installation) -> list[Path]:
    """Where things are written that grow: both may be on disks of their own."""
    return [installation.data] if settings.database.url else [installation.data, installation.postgres]


def _bundled() -> list[Path]:
    """The packs that Attune brings along, the core first."""
    bundled = Path(__file__).resolve().parent / "bundled"
    return [bundled / "core", bundled / "hello"]


def _watched(settings: Settings, installation: Installation) -> list[Path]:
    """The folders of packs that the settings name, or else the one in the data directory."""
    if not settings.packs.dirs:
        installation.packs.mkdir(mode=0o700, exist_ok=True)
        return [installation.packs]
    parents = [Path(name).expanduser().absolute() for name in settings.packs.dirs]
    for parent in parents:
        if not parent.is_dir():
            raise StartError(f"packs.dirs: there is no folder {parent}.")
    return parents


async def _application(
    engine: Engine,
    about: About,
    settings: Settings,
    installation: Installation,
    clock: Clock,
    ownership: Ownership,
) -> Starlette:
    tokens = Tokens(
        signing_key(installation.signing_key),
        clock,
        access_lifetime=settings.auth.access_token_lifetime,
        refresh_lifetime=settings.auth.refresh_token_lifetime,
    )
    identities = Identities(engine.bus, tokens)
    await identities.ensure_administrator()
    gate = Gate(identities, anonymous_read=about.anonymous == "read", public_url=settings.server.public_url)
    database, definitions = engine.database, engine.definitions
    routes = (
        HealthRoutes(_checks(database, ownership, engine.storage)),
        # Before the routes of single executions: `stream` is no id.
        StreamRoutes(engine.live, gate),
        AuthRoutes(identities),
        IdentityRoutes(identities),
        CatalogRoutes(database, engine.installer),
        RuleRoutes(database, engine.rules, definitions, clock),
        TimerRoutes(database, clock),
        EventRoutes(database, definitions, engine.ingest, clock),
        EnforcementRoutes(database, definitions),
        ExplainRoutes(database, definitions, clock, lambda: engine.retention.kept_since),
        ExecutionRoutes(database, definitions, engine.requests, engine.waiters, Logs(installation.execution_logs)),
        InquiryRoutes(database, engine.inquiries),
        BusRoutes(engine.bus),
        DeadLetterRoutes(engine.bus, engine.dead_letters),
        MetricsRoutes(engine.metrics, public=settings.metrics.public),
        DoctorRoutes(
            engine.bus,
            engine.ingress,
            definitions,
            engine.recovery,
            clock,
            lambda: engine.retention.account.most_overdue,
            anonymous=about.anonymous == "read",
        ),
        SpaceRoutes(database, engine.retention, installation),
        SystemRoutes(
            about,
            engine.bus,
            engine.ingress,
            engine.storage,
            clock,
            lambda: engine.worker.running,
            lambda: engine.timers.waiting,
            engine.folders,
            engine.recovery,
        ),
    )
    endpoints = described(
        [endpoint for one in routes for endpoint in one.endpoints()], public_url=settings.server.public_url
    )
    api = Api(
        endpoints,
        gate,
        engine.keys,
        max_body_size=settings.server.max_body_size,
        sockets=[live_socket(engine.live, gate)],
    )
    return api.application()


def _checks(database: Database, ownership: Ownership, storage: Storage) -> dict[str, Check]:
    async def answers() -> str | None:
        try:
            with anyio.fail_after(2):
                async with database.acquire() as connection:
                    await connection.fetchval("SELECT 1")
        except (DatabaseUnavailable, TimeoutError):
            return "the database does not answer"
        return None

    async def owned() -> str | None:
        return None if ownership.is_held else "this process does not own the database at the moment"

    async def room() -> str | None:
        # Where, and how much, is not for everybody.
        return None if storage.has_room() else "the disk is nearly full: nothing is taken from outside"

    return {"database": answers, "pipeline": owned, "storage": room}


@contextmanager
def _described(installation: Installation, about: About, reached: Reached) -> Iterator[None]:
    """Tell the command line on this machine how to reach the server and its database."""
    path = installation.description
    path.write_bytes(
        orjson.dumps(
            {
                "pid": about.pid,
                "url": about.url,
                "psql": {"program": reached.program, "environment": dict(reached.psql)},
            }
        )
    )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@asynccontextmanager
async def _answering(
    application: Starlette, live: LiveViews, settings: Settings, tcp: socket.socket, file: socket.socket
) -> AsyncIterator[None]:
    """Answer HTTP for the block; afterwards finish the requests that are under way, and end streams."""
    public = listening.behind(settings.server.trusted_proxies, application)
    servers = [(listening.tcp_server(public), tcp), (listening.local_server(application), file)]
    async with anyio.create_task_group() as answering:
        for server, bound in servers:
            answering.start_soon(server.serve, [bound])
        for server, _ in servers:
            await server.ready()
        try:
            yield
        finally:
            application.state.stopping = True
            live.close()
            for server, _ in servers:
                server.should_exit = True
