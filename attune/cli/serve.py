"""`attune serve`: the server."""

import os
import signal
import sys
from pathlib import Path
from shlex import quote
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attune.base.errors import plain_errors
from attune.base.installation import Installation, installation, user_config
from attune.cli.talk import say
from attune.upkeep.init import leave_pid_1

if TYPE_CHECKING:
    from attune.app import Serving


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes any that is free.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    config: Annotated[Path | None, typer.Option(help="The config file.", exists=True, dir_okay=False)] = None,
    packs: Annotated[list[Path] | None, typer.Option(help="A folder whose sub-folders are packs.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Greet the world every ten seconds, and show how.")] = False,
) -> None:
    """Run the server: timers, rules, workers, the API and the database, until Ctrl-C."""
    leave_pid_1()
    # The server's own imports take longer than all that any other command does.
    import anyio

    from attune import settings
    from attune.telemetry import logging

    path, remark = config_file(config)
    overrides: dict[str, dict[str, Any]] = {"server": {}, "packs": {}}
    if host is not None:
        overrides["server"]["host"] = host
    if port is not None:
        overrides["server"]["port"] = port
    if packs:
        overrides["packs"]["dirs"] = [str(folder) for folder in packs]
    loaded = settings.load(path, overrides)
    logging.configure(loaded.log.level, loaded.log.format)
    anyio.run(_serve, loaded, installation(data_dir), demo, remark)


async def _serve(loaded: Any, place: Installation, demo: bool, remark: str) -> None:
    import anyio

    from attune.app import serving, spare_collections
    from attune.telemetry.systemd import Notifier

    stop, systemd = anyio.Event(), Notifier()
    with plain_errors():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen_to_signals, stop)
            systemd.send(STATUS="Starting")
            async with serving(loaded, place, demo=demo) as server:
                say(_banner(server, remark))
                spare_collections()
                systemd.send(READY="1", STATUS=f"Listening on {server.about.url}")
                tasks.start_soon(systemd.keep_alive)
                await stop.wait()
                systemd.send(STOPPING="1", STATUS="Stopping")
            tasks.cancel_scope.cancel()


async def _listen_to_signals(stop: Any) -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if stop.is_set():
                say(f"\n{signal.Signals(number).name} again: stopping at once.")
                # What runs dies with us: the database by its death signal, actions by the guard.
                os._exit(1)
            say("\nStopping. Once more stops at once.")
            stop.set()


def config_file(given: Path | None) -> tuple[Path | None, str]:
    """The config file to read, and what to tell about it."""
    if given is not None:
        return given, f"config       {given}"
    here = Path("config.toml").absolute()
    remark = ""
    if here.is_file():
        if here.stat().st_uid == os.geteuid():
            return here, f"config       {here}"
        remark = f"config       {here} is not read: it belongs to somebody else"
    user = user_config()
    if user.is_file():
        return user, f"config       {user}"
    return None, remark or "config       none; the defaults hold"


def _banner(server: "Serving", remark: str) -> str:
    from attune.app import is_exposed
    from attune.upkeep.recovery import report

    about, public_url = server.about, server.settings.server.public_url
    lines = [
        "",
        f"Attune listens on {about.url}{f', for others {public_url}' if public_url else ''}",
        "",
        f"  data         {about.data}",
        f"  database     {about.database}",
        f"  packs        {', '.join(server.settings.packs.dirs) or Installation(Path(about.data)).packs}",
        f"  {remark}",
    ]
    lines += [f"  recovered    {line}" for line in report(server.engine.recovery)]
    if about.anonymous == "read":
        lines.append("  anonymous    everybody on this machine may read definitions, events and executions")
    if is_exposed(server.settings):
        lines.append("  plain HTTP   who is on the way reads passwords and tokens; docs/deploy/README.md shows TLS")
    if os.geteuid() == 0:
        lines.append("  root         Attune runs as root, and so does every action of every pack")
    lines += ["", "Next, in another terminal:", ""]
    lines += [f"  {line}" for line in _next_lines(about.url, Path(about.data), demo=about.demo)]
    lines += ["", "Ctrl-C stops.", ""]
    return "\n".join(lines)


def _next_lines(url: str, data: Path, *, demo: bool) -> list[str]:
    """What to type, so that it works as it stands in a terminal that knows nothing yet."""
    attune = "attune" if which("attune") == which(sys.argv[0]) else quote(sys.argv[0])
    lines = [f"curl '{url}/api/v1/executions?page=1&per_page=50'"] if demo else []
    if data != installation(None, {**os.environ, "ATTUNE_DATA_DIR": ""}).data:
        lines.append(f"export ATTUNE_DATA_DIR={quote(str(data))}")
    return [
        *lines,
        f"{attune} rule list",
        f"{attune} run core.echo -p message=hi",
        f"{attune} identity passwd admin",
    ]
