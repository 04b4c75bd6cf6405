"""A server of its own for a measurement: on a temporary cluster, or in a database of its own that is dropped later."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, redirect_stderr
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from attune.app import Serving, serving, spare_collections
from attune.base.installation import Installation
from attune.settings import Settings, load
from attune.telemetry import logging
from attune.telemetry.metrics import Instruments
from attune.telemetry.stages import Stages

TRIGGER = "bench.happening"
RULE = "bench.pipeline"

_PACK = {
    "pack.yaml": "ref: bench\nlabel: Bench\nversion: 1.0.0\n",
    "triggers/happening.yaml": f"ref: {TRIGGER}\nlabel: Happening\n",
}


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for everything, removed afterwards. As root it must let the user of PostgreSQL through."""
    folder = Path(tempfile.mkdtemp(prefix="attune-bench-"))
    try:
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bench_packs(folder: Path, rules: int = 1, files: Mapping[str, str] | None = None) -> Path:
    """A folder of packs in `folder`, with a pack of so many rules from `bench.happening` to `core.noop`, and of other
    `files`."""
    names = [RULE, *(f"{RULE}{number}" for number in range(1, rules))]
    own = {
        f"rules/{name}.yaml": f"ref: {name}\nlabel: Pipeline\ntrigger_ref: {TRIGGER}\naction_ref: core.noop\n"
        for name in names
    }
    for name, content in {**_PACK, **own, **(files or {})}.items():
        path = folder / "packs" / "bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "packs"


@asynccontextmanager
async def bench_server(
    settings: Settings,
    folder: Path,
    stages: Stages,
    instruments: Instruments | None = None,
    files: Mapping[str, str] | None = None,
) -> AsyncIterator[Serving]:
    """A server with `settings`, but all in `folder` and with a rule from `bench.happening` to `core.noop`; `files` are
    others of that pack.

    It logs what a server with these settings would, to a file in the folder.
    """
    packs = bench_packs(folder, files=files)
    async with _database(settings.database.url) as url:
        changes = {
            "server": {"port": 0},
            "database": {"url": url},
            "packs": {"dirs": [str(packs)]},
        }
        own = settings.model_copy(
            update={name: getattr(settings, name).model_copy(update=update) for name, update in changes.items()}
        )
        with _logging_to(folder / "log", own):
            async with serving(own, Installation(folder / "data"), stages=stages, instruments=instruments) as server:
                spare_collections()
                yield server


@contextmanager
def _logging_to(path: Path, settings: Settings) -> Iterator[None]:
    with path.open("w", buffering=1) as file:
        # The log keeps the stderr that it finds: what the measurement says goes to the terminal.
        with redirect_stderr(file):
            logging.configure(settings.log.level, "json")
        try:
            yield
        finally:
            structlog.reset_defaults()


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[str]:
    """The URL of a new database beside the one of `url`; none for the embedded server, which is temporary itself."""
    if not url:
        yield ""
        return
    name = f"attune_bench_{os.getpid()}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


def bench_settings(config: Path | None) -> Settings:
    """The settings to measure with: those of a config file and the environment."""
    return load(config)
