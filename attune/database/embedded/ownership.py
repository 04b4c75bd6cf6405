"""Whose the server and its files are.

PostgreSQL refuses to run as root. Started by root it runs as an ordinary account; the folders that the server writes to
belong to that account, the folder around them stays root's, so that nobody but root can exchange what lies in it.
"""

import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attune.base.errors import StartError

with suppress(ModuleNotFoundError):  # Windows: there `find_binaries` refuses by name, which it can do only when asked.
    import pwd

DEFAULT_ACCOUNTS = ("attune", "postgres", "nobody")

# What the kernels take for the path of a socket, less the closing NUL.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_SEARCHABLE = 'for path do test -x "$path" || { printf %s "$path"; exit 1; }; done'


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as. `switch` says that this process, being root, has to become it first."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    switch: bool


def choose_account(run_as: str | None, cluster: Path) -> Account:
    """`run_as`, else the owner of a cluster that exists already, else (as root) the first account there is."""
    if os.geteuid() != 0:
        return _ourselves(run_as)
    if run_as is not None:
        return _not_root(_named(run_as), f"database.user is {run_as!r}")
    if (cluster / "PG_VERSION").exists():
        return _not_root(_account(cluster.stat().st_uid), f"{cluster} belongs to root")
    for name in DEFAULT_ACCOUNTS:
        try:
            return _account(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StartError(
        f"PostgreSQL does not run as root, and none of the users {', '.join(DEFAULT_ACCOUNTS)} exists. "
        "Name an unprivileged user in database.user."
    )


def first_refused(account: Account, paths: Iterable[Path]) -> Path | None:
    """The first of `paths` that `account` may not enter (a folder) or run (a file).

    A process of that account tries it: mode bits alone do not tell what an access control list allows.
    """
    done = subprocess.run(
        ["/bin/sh", "-c", _SEARCHABLE, "sh", *paths],
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    return Path(os.fsdecode(done.stdout)) if done.returncode else None


def outer_directory(path: Path, account: Account) -> None:
    """Make the folder around the server's own, and see that `account` can reach it."""
    if not path.exists():
        path.mkdir()
        path.chmod(0o711 if account.switch else 0o700)
    if not account.switch:
        return
    blocking = first_refused(account, [*reversed(path.parents), path])
    if blocking is not None:
        raise StartError(
            f"PostgreSQL runs as the user {account.name}, who cannot enter {blocking} ({_described(blocking)}), "
            f"and so not reach {path}. Choose another --data-dir, or run: chmod o+x {blocking}"
        )


def private_directory(path: Path, account: Account) -> None:
    """Make a folder that only `account` may enter; one that exists already has to be exactly that."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
            raise StartError(
                f"{path} is {_described(path)}; it has to be a folder with mode 0700 that belongs to {account.name}. "
                "Remove it, or give it to that user."
            ) from None
        return
    if account.switch:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def socket_directory(directory: Path) -> Path:
    """Where the socket of the server in `directory` lies: in it, or, when the path is too long, in a temporary folder.

    The temporary folder is the same for the same `directory` as long as TMPDIR does not change.
    """
    inside = directory / "socket"
    # libpq and PostgreSQL both read a comma as the end of a path.
    if len(os.fsencode(inside / ".s.PGSQL.5432")) <= _LONGEST_SOCKET_PATH and not {",", '"'} & set(str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()
    return Path(tempfile.gettempdir()) / f"attune-{digest[:16]}"


def _described(path: Path) -> str:
    found = path.lstat()
    return f"{stat.filemode(found.st_mode)}, mode {stat.S_IMODE(found.st_mode):04o}, of {_name(found.st_uid)}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        # Containers run under numbers that nobody named.
        return Account(str(uid), uid, uid, (uid,), switch=True)
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, uid, entry.pw_gid, groups, switch=True)


def _named(name: str) -> Account:
    try:
        return _account(pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise StartError(
            f"database.user: there is no user {name!r} on this machine. Name one that exists, or remove the setting."
        ) from None


def _not_root(account: Account, because: str) -> Account:
    if account.uid == 0:
        raise StartError(f"{because}, but PostgreSQL does not run as root. Use an unprivileged user.")
    return account


def _ourselves(run_as: str | None) -> Account:
    name = _name(os.geteuid())
    if run_as is not None and _named(run_as).uid != os.geteuid():
        raise StartError(
            f"database.user is {run_as!r}, but Attune runs as {name}, and only root can start PostgreSQL as somebody "
            "else. Remove the setting."
        )
    return Account(name, os.geteuid(), os.getegid(), (), switch=False)
