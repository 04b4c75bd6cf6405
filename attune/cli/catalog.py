"""`attune pack|trigger|action …`: what there is to build rules from."""

from pathlib import Path
from typing import Annotated

import typer

from attune.cli.client import segment
from attune.cli.common import Context, command
from attune.cli.talk import CommandError, Exit, say

Limit = Annotated[int, typer.Option(help="How many, at most.", min=1)]


def _noun(kind: str, columns: list[str]) -> typer.Typer:
    app = typer.Typer(name=kind, help=f"The {kind}s.", no_args_is_help=True)

    @command(app, "list", text=f"List {kind}s.")
    def list_(context: Context, limit: Limit = 1000) -> None:
        context.rows(list(context.client.pages(f"/api/v1/{kind}s", limit)), columns)

    @command(app, "show", text=f"Show {'an' if kind == 'action' else 'a'} {kind}.")
    def show(context: Context, ref: Annotated[str, typer.Argument(help=f"The ref of the {kind}.")]) -> None:
        context.one(context.client.get(f"/api/v1/{kind}s/{segment(ref)}"))

    return app


pack = _noun("pack", ["ref", "version", "label", "description"])
trigger = _noun("trigger", ["ref", "enabled", "label", "description"])
action = _noun("action", ["ref", "runtime_ref", "label", "description"])

_PackRef = Annotated[str, typer.Argument(help="The ref of the pack.")]


@command(pack, "export")
def export(
    context: Context,
    ref: _PackRef,
    directory: Annotated[Path, typer.Argument(help="The folder to make.", metavar="DIR")],
) -> None:
    """Write the files of a pack, as they were read last, into a folder."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CommandError(f"{directory} is there already and not empty; name another folder.", Exit.USAGE)
    path = f"/api/v1/packs/{segment(ref)}"
    files = context.client.get(f"{path}/files")["files"]
    _extract(context.client.content(f"{path}/archive"), directory)
    for file in files:
        if not file["is_kept"]:
            say(f"warning: {file['path']} is too large to be kept, and missing")
    say(f"{len(files)} files of {ref} are in {directory}")


@command(pack, "delete")
def delete(context: Context, ref: _PackRef) -> None:
    """Delete a pack whose folder is read no more. One that is read goes away with its folder."""
    context.confirm(f"Delete the pack {ref} with its triggers, actions and rules?")
    say(context.client.send("DELETE", f"/api/v1/packs/{segment(ref)}")["message"])


def _extract(archive: bytes, directory: Path) -> None:
    """Write the files of an archive, without the folder that holds them there."""
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            parts = Path(member.name).parts[1:]
            if content is None or ".." in parts:
                raise CommandError(f"The server sent {member.name}, which is no file of a pack.", Exit.REFUSED)
            path = directory.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
            path.chmod(member.mode & 0o777)
