"""Where settings come from, which wins, and what is said when one is wrong. T-02, T-40, T-41, T-50: keys that nobody
reads, and values that nobody checks."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attune.base.errors import StartError
from attune.settings import load, sections

CONFIG = Path(__file__).resolve().parents[2] / "config.toml"

KEYS = [(section, key) for section, model in sections().items() for key in model.model_fields]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell has that runs the tests."""
    for variable in list(os.environ):
        if variable.upper().startswith("ATTUNE_"):
            monkeypatch.delenv(variable)


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


DEFAULTS = {section: model().model_dump() for section, model in sections().items()}


def refusal(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """What the error says, a line for each fault."""
    with pytest.raises(StartError) as refused:
        load(path, overrides)
    first, *faults = str(refused.value).splitlines()
    assert first == "The settings are wrong:"
    return [fault.removeprefix("  - ") for fault in faults]


# Where values come from


def test_without_anything_the_defaults_hold() -> None:
    settings = load(None)
    assert settings.model_dump() == load(None, {}).model_dump() == DEFAULTS
    assert (settings.server.host, settings.server.port, settings.database.url) == ("127.0.0.1", 8080, "")
    assert settings.auth.anonymous == "off"


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    text = '[server]\nport = 9000\n[packs]\ndirs = ["/srv/packs"]\n[metrics]\npublic = true\n'
    settings = load(written(tmp_path, text))
    assert (settings.server.port, settings.packs.dirs, settings.metrics.public) == (9000, ["/srv/packs"], True)
    assert settings.server.host == "127.0.0.1"


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, '[server]\nport = 1\nhost = "::1"\nmax_body_size = 2048\n')
    monkeypatch.setenv("ATTUNE_SERVER__PORT", "2")
    monkeypatch.setenv("ATTUNE_SERVER__MAX_BODY_SIZE", "4096")
    server = load(path, {"server": {"port": 3}, "packs": {}}).server
    assert (server.port, server.max_body_size, server.host) == (3, 4096, "::1")


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("ATTUNE_SERVER__PORT", "9000", "server", "port", 9000),
        ("ATTUNE_LOG__LEVEL", "debug", "log", "level", "debug"),
        ("ATTUNE_WORKER__KILL_GRACE", "0.5", "worker", "kill_grace", 0.5),
        # Lists are JSON.
        ("ATTUNE_PACKS__DIRS", '["/a", "/b c"]', "packs", "dirs", ["/a", "/b c"]),
        ("ATTUNE_WORKER__PASS_ENV", "[]", "worker", "pass_env", []),
        ("ATTUNE_METRICS__PUBLIC", "true", "metrics", "public", True),
        # An address is text, whatever it looks like, and may be empty.
        ("ATTUNE_DATABASE__URL", "", "database", "url", ""),
        ("ATTUNE_DATABASE__URL", "postgresql://u:p@h/n", "database", "url", "postgresql://u:p@h/n"),
        # The case of a variable does not matter.
        ("attune_server__port", "9000", "server", "port", 9000),
    ],
)
def test_a_variable_sets_a_key(
    variable: str, text: str, section: str, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(getattr(load(None), section), key) == value


@pytest.mark.parametrize(
    "variable",
    [
        "ATTUNE_DATA_DIR",  # where everything is kept is no setting: it is known before settings are read
        "ATTUNE_BOOT_ID",  # a server that is started by an action has the variables of that action
        "ATTUNE_API_TOKEN",
        "ATTUNE_PACK_REF",
        "ATTUNE_ACTION",
        "ATTUNED__SERVER",  # somebody else's
    ],
)
def test_variables_that_are_no_settings_are_left_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "anything")
    assert load(None).model_dump() == DEFAULTS


# What is refused


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        # A key and a section that are unknown, with what was meant, or what there is.
        ("[server]\nprot = 1\n", "server.prot is unknown; did you mean 'port'?"),
        ("[bus]\nurl = ''\n", "bus.url is unknown; there are max_attempts, trace_days"),
        ("[servers]\nport = 1\n", "servers is unknown; did you mean 'server'?"),
        (
            "port = 1\n",
            "port is unknown; there are server, database, log, auth, bus, storage, retention, rules, alerts, worker, ",
        ),
        # A section that is none: it would vanish behind what the command line adds to the section.
        ("server = 5\n", "server is a section: write [server], and its keys below"),
        # Values of a wrong type, or out of range.
        ("[server]\nport = 'x'\n", "server.port: input should be a valid integer, unable to parse string"),
        ("[server]\nport = 65536\n", "server.port: input should be less than or equal to 65535"),
        ("[server]\nport = true\n", "server.port: cannot be true or false"),
        # A path, which no route knows of; no scheme; no URL at all.
        ("[server]\npublic_url = 'https://a.example/attune'\n", "server.public_url: should be a scheme and a host"),
        ("[server]\npublic_url = 'https://a.example/'\n", "server.public_url: should be a scheme and a host"),
        ("[server]\npublic_url = 'a.example'\n", "server.public_url: should be a scheme and a host"),
        # A name, everybody, a network that is none.
        ("[server]\ntrusted_proxies = ['proxy']\n", "server.trusted_proxies.0: should be an address or a network"),
        ("[server]\ntrusted_proxies = ['*']\n", "server.trusted_proxies.0: should be an address or a network"),
        ("[server]\ntrusted_proxies = ['10.0.0.1/8']\n", "server.trusted_proxies.0: should be an address or a netw"),
        ("[log]\nlevel = 'DEBUG'\n", "log.level: input should be 'debug', 'info', 'warning' or 'error'"),
        ("[worker]\nkill_grace = nan\n", "worker.kill_grace: "),
        ("[worker]\npass_env = ['A', 'a b']\n", "worker.pass_env.1: string should match pattern"),
        ("[metrics]\npublic = 'some'\n", "metrics.public: input should be a valid boolean"),
        ("[packs]\ndirs = '/a'\n", "packs.dirs: input should be a valid list"),
        # Text that is no TOML, with line and column.
        ("[server]\nport = \n", "is not TOML: Invalid value (at line 2, column 8)"),
        ("[server\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"),
        ("[server]\nport = 1\nport = 2\n", "is not TOML: Cannot overwrite a value (at line 3"),
    ],
)
def test_a_wrong_file_is_refused_by_name_key_and_reason(text: str, fault: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    (told,) = refusal(path, {"server": {}, "packs": {}})
    assert told.startswith(f"{path}: {fault}")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[server]\nport = -1\nhots = ''\n")
    monkeypatch.setenv("ATTUNE_LOG__LEVEL", "loud")
    faults = "\n".join(refusal(path))
    assert all(key in faults for key in ("server.port:", "server.hots is", "log.level:"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),  # `load` is asked for this very file
        (b"\xff\xfe[server]", "is not TOML: 'utf-8' codec can't decode"),
        (b"", None),  # an empty file says nothing
    ],
)
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    if reason is None:
        assert load(path).model_dump() == DEFAULTS
    else:
        (told,) = refusal(path)
        assert told.startswith(f"{path}: {reason}")


def test_a_folder_is_no_config_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("variable", "text", "fault"),
    [
        ("ATTUNE_SERVER__PROT", "1", "server.prot is unknown; did you mean 'port'?"),
        ("ATTUNE_SERVR__PORT", "1", "there is no section 'servr'; did you mean 'server'?"),
        ("ATTUNE_SERVER__PORT", "many", "server.port: input should be a valid integer, unable to parse"),
        ("ATTUNE_SERVER__PORT", "", "server.port: input should be a valid integer, unable to parse"),
        # One underscore where two are needed: silence would be a setting without effect.
        ("ATTUNE_SERVER_PORT", "1", "is unknown; did you mean ATTUNE_SERVER__PORT?"),
        ("ATTUNE_WORKER_PASS_ENV", "[]", "is unknown; did you mean ATTUNE_WORKER__PASS_ENV?"),
        ("ATTUNE_SERVER", '{"port": 1}', "server is a section: set ATTUNE_SERVER__KEY"),
        ("ATTUNE_SERVER__PORT__MORE", "1", "server.port: input should be a valid integer"),
        ("attune_servr__port", "1", "there is no section 'servr'; did you mean 'server'?"),
        # Lists are JSON.
        ("ATTUNE_PACKS__DIRS", "/a", 'packs.dirs: should be a JSON list, such as ["one", "two"]'),
        ("ATTUNE_PACKS__DIRS", "{}", 'packs.dirs: should be a JSON list, such as ["one", "two"]'),
        ("ATTUNE_PACKS__DIRS", "[1]", "packs.dirs.0: input should be a valid string"),
    ],
)
def test_a_wrong_variable_is_refused_by_name_key_and_reason(
    variable: str, text: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    (told,) = refusal()
    assert told.startswith(f"environment variable {variable}: {fault}")


def test_the_one_who_said_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line wins, so what is wrong is its value, whatever the others say."""
    path = written(tmp_path, "[server]\nport = 1\n")
    monkeypatch.setenv("ATTUNE_SERVER__PORT", "2")
    (told,) = refusal(path, {"server": {"port": -1}})
    assert told.startswith("command line: server.port: ")


def test_no_value_is_repeated(tmp_path: Path) -> None:
    """It may be a password at the wrong place."""
    path = written(tmp_path, "[database]\nurl = ['hunter2']\nuser = {hunter2 = 1}\nmax_connections = 'hunter2'\n")
    faults = refusal(path)
    assert len(faults) == 3
    assert "hunter2" not in "\n".join(faults)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None).server.port = 1  # type: ignore[misc]


# config.toml


def test_the_repositorys_file_changes_nothing() -> None:
    assert load(CONFIG).model_dump() == DEFAULTS


def test_the_repositorys_file_has_every_key_once_in_order_and_commented_out() -> None:
    found: list[tuple[str, str]] = []
    section = ""
    for line in CONFIG.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif setting := re.fullmatch(r"#(\w+) = .+", line):
            found.append((section, setting[1]))
        else:
            assert line == "" or line.startswith("# ") or line == "#"
    assert found == KEYS


@pytest.mark.parametrize(("section", "key"), KEYS, ids=".".join)
def test_the_repositorys_file_says_what_a_key_means_and_its_default(section: str, key: str) -> None:
    """The text of the key stands right above it, however its lines are broken."""
    field = sections()[section].model_fields[key]
    assert field.description
    own = CONFIG.read_text().split(f"\n[{section}]\n")[1].split("\n[")[0]
    (block,) = (block for block in own.split("\n\n") if f"\n#{key} = " in f"\n{block}")
    *text, setting = block.strip().splitlines()
    assert " ".join(line.removeprefix("# ") for line in text) == field.description
    assert tomllib.loads(setting.removeprefix("#")) == {key: field.default}


def test_uncommenting_every_key_gives_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^#(?=\w+ = )", "", CONFIG.read_text())
    assert {name: set(values) for name, values in tomllib.loads(text).items()} == {
        name: set(model.model_fields) for name, model in sections().items()
    }
    assert load(written(tmp_path, text)).model_dump() == DEFAULTS


def test_every_key_has_a_text_for_people() -> None:
    for section, key in KEYS:
        description = sections()[section].model_fields[key].description
        assert description is not None
        assert description[0].isupper(), f"{section}.{key}"
        assert description.endswith("."), f"{section}.{key}"
