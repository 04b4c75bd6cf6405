"""Packs of a real server: a folder in the data directory is all that it takes, while it runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Running, attune, serving
from tests.support.engines import pack
from tests.support.waiting import until

MINE = {
    "pack.yaml": "ref: mine\n",
    "actions/greet.yaml": "entry_point: greet\nparameters:\n  name: string\n",
    "actions/greet": "#!/bin/sh\ncat\n",
}
RULE = "trigger: core.intervaltimer\ntrigger_params: {interval: 1}\naction: greet\naction_params: {name: Ada}\n"


def written(folder: Path) -> Path:
    """The pack, with its script executable, made elsewhere and moved there: it appears whole."""
    made = pack(folder, "mine", MINE)
    (made / "actions/greet").chmod(0o755)
    return Path(shutil.move(made, folder / "data/packs/mine"))


@pytest.mark.long
async def test_a_pack_in_the_data_directory_is_read_while_the_server_runs(folder: Path, dsn: str) -> None:
    async with serving(folder, dsn=dsn) as server:
        mine = written(folder)
        await until(lambda: _found(server, "/api/v1/actions/mine.greet"))
        ran = await attune("run", "mine.greet", "-p", "name=Ada", data=server.place.data)
        assert (ran.returncode, ran.stdout) == (0, '{"name":"Ada"}\n')

        (mine / "rules").mkdir()
        (mine / "rules/often.yaml").write_text(RULE.replace("greet", "gret"))
        broken = await until(lambda: _broken(server))
        assert broken["problems"] == [
            {
                "file": str(mine / "rules/often.yaml"),
                "line": 3,
                "key": "action",
                "detail": "there is no action mine.gret; did you mean 'mine.greet'?",
            }
        ]
        assert "did you mean 'mine.greet'" in (await attune("status", data=server.place.data)).stdout
        assert "a pack is not loaded" in {line["message"] for line in server.lines()}

        (mine / "rules/often.yaml").write_text(RULE)
        await until(lambda: _completed(server))
        assert await _broken(server) is None
    # A start reads what is there; nothing of it is new.
    async with serving(folder, dsn=dsn) as server:
        assert (await server.get("/api/v1/rules/mine.often"))["enabled"]


async def _found(server: Running, path: str) -> bool | None:
    return (await server.ask("GET", path)).status_code == 200 or None


async def _broken(server: Running) -> Any:
    return next(iter((await server.get("/api/v1/system/status"))["broken_packs"]), None)


async def _completed(server: Running) -> Any:
    executions = await server.get("/api/v1/executions", status="completed", rule_ref="mine.often")
    return executions[0] if executions else None
