"""How the server is set up: for one small machine, quiet when idle, and durable."""

from collections.abc import Mapping
from pathlib import Path

from attune.base.errors import StartError

PORT = 5432

_TUNED = {
    "synchronous_commit": "on",
    "fsync": "on",
    "full_page_writes": "on",
    # Nothing replicates from this server and backups are dumps, which another major can read too. `minimal` writes no
    # snapshots for standbys, so an idle server writes nothing. Changing it later takes a restart, no migration.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "max_connections": "40",
    # Only what is touched takes memory; huge pages would be taken whole.
    "shared_buffers": "64MB",
    "huge_pages": "off",
    # Queries are short: compiling them or starting processes for them costs more than it brings.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "autovacuum": "on",
    "track_io_timing": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}


def server_options(major: int, sockets: Path, logs: Path, extra: Mapping[str, str]) -> list[str]:
    """The arguments of `postgres`: our settings, changed by `extra`, which may not touch how we reach the server."""
    fixed = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "cluster_name": "attune",
        "logging_collector": "on",
        "log_destination": "stderr",
        "log_directory": str(logs),
        "log_filename": "postgresql-%a.log",
        "log_rotation_age": "1d",
        # With a name a day it would only open the same file again; `logs.trim` bounds the size.
        "log_rotation_size": "0",
        "log_truncate_on_rotation": "on",
    }
    refused = sorted(fixed.keys() & extra.keys())
    if refused:
        raise StartError(f"The PostgreSQL settings {', '.join(refused)} are Attune's own. Remove them.")
    # 18 reads through a pool of processes by default; a small data set lies in memory anyway.
    newer = {"io_method": "sync"} if major >= 18 else {}
    settings = {**_TUNED, **newer, **extra, **fixed}
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
