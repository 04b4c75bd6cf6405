"""One server for the commands of a module."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.cli.typed import Commands, commands_of
from tests.support.engines import pack

_FAIL = 'cat > /dev/null\necho before\nfor line in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "line $line" >&2; done\nexit 3\n'


# The first byte of a character, and after a while the second.
_SLOW = (
    "import json, pathlib, sys, time\n"
    "gate = pathlib.Path(json.load(sys.stdin)['gate'])\n"
    "sys.stdout.buffer.write(b'before\\nhalf \\xc3'); sys.stdout.flush()\n"
    "while not gate.exists(): time.sleep(0.02)\n"
    "sys.stdout.buffer.write(b'\\xa9 done\\n')\n"
)


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Path) -> AsyncIterator[Site]:
    """A server with an action that fails."""
    folder = new_folder(base)
    fail = {"actions/fail.yaml": "ref: bad.fail\nlabel: Fail\nentry_point: fail.sh\n", "actions/fail.sh": _FAIL}
    slow = {"actions/slow.yaml": "ref: bad.slow\nlabel: Slow\nentry_point: slow.py\nrunner_type: python\n"}
    slow |= {"actions/slow.py": _SLOW}
    pack(folder / "packs", "bad", fail | slow)
    async with new_database(cluster) as dsn, site_on(dsn, folder) as made:
        yield made


@pytest.fixture(scope="module")
async def attune(site: Site) -> AsyncIterator[Commands]:
    """The commands of a person on the server's machine."""
    async with commands_of(site.place.data) as commands:
        yield commands
