"""The folders whose sub-folders are packs: read at start, and again when something in them changes."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog
from watchfiles import Change, awatch

from attune.base.clock import Clock
from attune.base.errors import BadInput, Problem, plain_errors
from attune.catalog import queries
from attune.catalog.definitions import Definitions
from attune.catalog.files import FOLDERS, yaml_files
from attune.catalog.install import Installer
from attune.catalog.sources import is_ours
from attune.database.pool import Database, DatabaseUnavailable

log = structlog.get_logger()

_QUIET_MS = 200
"""How long nothing must change before it is read: who writes several files gets to the end of it."""
_LONGEST_MS = 2_000
_PAUSE = 0.5
_LOOK_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Broken:
    """A pack that is not loaded as its folder has it, what is wrong with it, and since when. What was installed before
    goes on."""

    folder: Path
    problems: tuple[Problem, ...]
    since: datetime


class PackFolders:
    """Keeps the database saying what the folders say."""

    def __init__(
        self,
        database: Database,
        installer: Installer,
        definitions: Definitions,
        clock: Clock,
        packs: Sequence[Path],
        parents: Sequence[Path],
    ) -> None:
        """`packs` are folders of packs, read once; `parents` hold such folders, and are watched."""
        self._database = database
        self._installer = installer
        self._definitions = definitions
        self._clock = clock
        self._packs = packs
        self._parents = parents
        self._once: set[Path] = set()
        self._broken: dict[Path, Broken] = {}
        self._reading = anyio.Lock()
        self._unwatched = ""
        self._left: set[str] = set()

    @property
    def broken(self) -> list[Broken]:
        """The packs that are not as their folders have them, until they are right again."""
        return [self._broken[folder] for folder in sorted(self._broken)]

    async def read(self) -> None:
        """Let the database say what the folders say now."""
        async with self._reading:
            folders = [*self._packs, *await anyio.to_thread.run_sync(self._found)]
            self._installer.keep(folders)
            refused = await self._install([folder for folder in folders if folder not in self._once])
            self._once = set(self._packs) - refused.keys()
            self._note({**refused, **self._missing()})
            await self._remove_gone(set(folders))
            async with self._database.acquire() as connection:
                await self._definitions.follow(connection, await queries.current_version(connection))

    async def watch(self) -> None:
        """Read again whenever something changes, until cancelled."""
        while self._parents:
            roots = _identities(self._parents)
            try:
                with plain_errors():
                    await self._watch(roots)
            except (OSError, RuntimeError) as error:
                self._say_unwatched(str(error))
                await self._read_until_done()
                await self._clock.sleep(_LOOK_AGAIN)
            if len(_identities(self._parents)) < len(self._parents):
                # One of them is away; nothing tells when it is back.
                await self._clock.sleep(_LOOK_AGAIN)

    async def _watch(self, roots: Mapping[Path, object]) -> None:
        """Read what changes in these, until others are to be watched."""
        if not roots:
            await self._read_until_done()
            return
        stop = anyio.Event()
        changes = awatch(*roots, watch_filter=_Ours(list(roots)), step=_QUIET_MS, debounce=_LONGEST_MS, stop_event=stop)
        async with aclosing(changes), anyio.create_task_group() as tasks:
            changed = _Signal()
            tasks.start_soon(_follow, changes, changed)
            # The watch begins here; what changed before it is read now.
            await anyio.lowlevel.checkpoint()
            try:
                await self._read_until_done()
                while _identities(self._parents) == roots:
                    await changed.wait()
                    await self._read_until_done()
            finally:
                # It waits in a thread, which no cancellation reaches.
                stop.set()

    def _say_unwatched(self, error: str) -> None:
        if error != self._unwatched:
            self._unwatched = error
            log.error("packs cannot be watched, and are looked at every few seconds", error=error)

    async def _read_until_done(self) -> None:
        while True:
            try:
                await self.read()
                return
            except DatabaseUnavailable as error:
                log.debug("the packs wait for the database", error=str(error))
                await self._clock.sleep(_PAUSE)
            except Exception:
                log.exception("the packs could not be read")
                return

    def _found(self) -> list[Path]:
        return [folder for parent in self._parents for folder in packs_in(parent)]

    async def _install(self, folders: Sequence[Path]) -> dict[Path, Sequence[Problem]]:
        """What is wrong with those that are not installed. One may use what another brings, in whatever order."""
        refused: dict[Path, Sequence[Problem]] = {}
        waiting = list(folders)
        while waiting:
            refused = {}
            for folder in waiting:
                try:
                    await self._installer.install(folder)
                except BadInput as error:
                    refused[folder] = error.problems
            if len(refused) == len(waiting):
                break
            waiting = list(refused)
        return refused

    def _missing(self) -> dict[Path, Sequence[Problem]]:
        what = "there is no such folder; the packs that were read from it stay as they are"
        return {parent: [Problem(str(parent), what)] for parent in self._parents if not parent.is_dir()}

    def _note(self, refused: Mapping[Path, Sequence[Problem]]) -> None:
        """Remember what is broken, and tell what was not told yet."""
        for folder in self._broken.keys() - refused.keys():
            del self._broken[folder]
            log.info("a pack is not broken any more", folder=str(folder))
        for folder, problems in refused.items():
            known = self._broken.get(folder)
            if known is None or known.problems != tuple(problems):
                self._broken[folder] = Broken(folder, tuple(problems), known.since if known else self._clock.now())
                log.error("a pack is not loaded", folder=str(folder), problems=[str(one) for one in problems])

    async def _remove_gone(self, folders: set[Path]) -> None:
        """Remove the packs whose folders are gone from where packs are."""
        async with self._database.acquire() as connection:
            known = await queries.pack_folders(connection)
        for ref, path in known.items():
            folder = Path(path)
            parent = folder if folder in self._parents else folder.parent
            is_other = folder in folders and folder not in self._broken and ref not in self._installer.folders
            if (folder not in folders or is_other) and parent in self._parents and parent.is_dir():
                await self._installer.remove(ref)
            elif parent not in self._parents and folder not in folders:
                self._tell_left(ref, path)

    def _tell_left(self, ref: str, folder: str) -> None:
        if ref not in self._left:
            self._left.add(ref)
            log.warning(
                "a pack goes on as it was read last: its folder is not read any more",
                pack=ref,
                folder=folder,
                remedy=f"name the folder in packs.dirs, or attune pack delete {ref}",
            )


def packs_in(parent: Path) -> list[Path]:
    """The packs in a folder, which may itself be one."""
    if (parent / "pack.yaml").is_file():
        return [parent]
    if not parent.is_dir():
        return []
    return sorted(folder for folder in parent.iterdir() if is_ours(folder.name) and _is_pack(folder))


def _is_pack(folder: Path) -> bool:
    """Whether it is one, or is meant to be: who forgets pack.yaml wants to be told."""
    return (folder / "pack.yaml").exists() or any(yaml_files(folder / name) for name in FOLDERS)


def _identities(parents: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Those that are there, and which they are: one that was removed and made again has to be watched anew."""
    found = {}
    for parent in parents:
        with suppress(OSError):
            stat = parent.stat()
            found[parent] = (stat.st_dev, stat.st_ino)
    return found


class _Ours:
    """Lets changes of what belongs to packs through."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots

    def __call__(self, _: Change, path: str) -> bool:
        for root in self._roots:
            if Path(path).is_relative_to(root):
                return all(map(is_ours, Path(path).relative_to(root).parts))
        # macOS tells it under another name when the way there leads over a link.
        return True


class _Signal:
    """Something happened, at least once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Return when it happened since the last time."""
        await self._event.wait()
        self._event = anyio.Event()


async def _follow(changes: AsyncGenerator[Any, None], changed: _Signal) -> None:
    async for _ in changes:
        changed.set()
