"""`attune space`: who takes how much room; and to give back what nobody needs any more."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from attune.cli.common import Context, Format, print_table
from attune.cli.serve import config_file
from attune.cli.talk import CommandError, Exit, say
from attune.cli.times import counted, duration, local


def space(
    context: Context,
    compact: Annotated[
        bool, typer.Option("--compact", help="Make files smaller by what was deleted from them; no server may run.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="The config file of the server, for --compact.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Show what takes how much room, how much history may take, and what retention has removed."""
    if compact:
        _compact(context, config)
        return
    found = context.client.get("/api/v1/system/space")
    if context.format is not Format.TABLE:
        context.one(found)
        return
    tables = sorted(found["tables"], key=lambda table: -(table["data_bytes"] + table["index_bytes"]))
    headings = ["table", "rows", "data", "indexes", "rows alone", "oldest"]
    print_table(headings, [[table["name"], *_sizes(table)] for table in tables])
    print()  # noqa: T201 - data
    for line in _lines(found):
        print(line)  # noqa: T201 - data


def _sizes(table: Mapping[str, Any]) -> Sequence[str]:
    about = table["rows_bytes"]
    return (
        f"{table['rows']:,}",
        _size(table["data_bytes"]),
        _size(table["index_bytes"]),
        "-" if about is None else f"about {_size(about)}",
        "-" if table["oldest"] is None else local(table["oldest"]),
    )


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"database      {_size(found['database_bytes'])}"
    if found["wal_bytes"] is not None:
        yield f"its log       {_size(found['wal_bytes'])} (WAL)"
    for folder in found["folders"]:
        more = "" if folder["complete"] else "at least "
        within = ", with the database and its log" if folder["name"] == "postgres" and folder["files"] else ""
        yield f"{folder['name']:<12}  {more}{_size(folder['bytes'])} in {counted(folder['files'], 'file')}{within}"
    yield f"free          {_size(found['free_bytes'])}"
    yield ""
    yield from _retention(found["retention"], found["history_bytes"])


def _retention(kept: Mapping[str, Any], history: int) -> Iterator[str]:
    yield f"history       about {_size(history)} of {_size(kept['max_bytes'])} at most, logs included"
    yield f"kept for      {kept['days']} days, dead letters {kept['dead_letter_days']}"
    if kept["ended_at"] is None:
        yield "retention     has not run since the server started"
        return
    removed = ", ".join(f"{count:,} {name}" for name, count in kept["removed"].items() if count)
    yield f"retention     ran {local(kept['ended_at'])} for {duration(kept['seconds'])}"
    yield f"removed       {removed or 'nothing'} since the server started"


def _size(count: int) -> str:
    """So many bytes, as people say it."""
    for unit, factor in (("GB", 1_000_000_000), ("MB", 1_000_000)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"


def _compact(context: Context, config: Path | None) -> None:
    place = context.client.place
    if place is None:
        raise CommandError("--compact works on the data of this machine; --server names another.", Exit.USAGE)
    # The server's own imports take longer than all that any other command does.
    import anyio

    from attune import settings
    from attune.app import compacted
    from attune.database.compact import Shrunk
    from attune.telemetry import logging

    path, _ = config_file(config)
    loaded = settings.load(path)
    logging.configure("warning", loaded.log.format)
    tables = anyio.run(compacted, loaded, place, say)
    tables["all"] = Shrunk(sum(one.before for one in tables.values()), sum(one.after for one in tables.values()))
    if context.format is not Format.TABLE:
        context.one({name: one._asdict() for name, one in tables.items()})
        return
    rows = [[name, _size(one.before), _size(one.after)] for name, one in tables.items()]
    print_table(["table", "before", "after"], rows)
