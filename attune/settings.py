"""Every setting: its key, its default, and what it means.

The values come from, in this order and the later winning: the defaults here, a config file, and environment variables
`ATTUNE_SECTION__KEY`.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from attune.base.errors import StartError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENVIRONMENT_PREFIX = "ATTUNE_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        # To pydantic true is 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("cannot be true or false")
        return value


def _site(text: str) -> str:
    parts = urlsplit(text)
    if text and (
        parts.scheme not in {"http", "https"} or not parts.netloc or text != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError("should be a scheme and a host without a path, such as https://attune.example.org")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError("should be an address or a network, such as 127.0.0.1 or 10.0.0.0/8") from error
    return text


class Server(_Section):
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 takes any that is free.")
    public_url: Annotated[str, AfterValidator(_site)] = Field(
        "",
        description="Where people reach Attune when a proxy stands in front of it, such as https://attune.example.org. "
        "Empty: where it listens.",
    )
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(
        [],
        description="Addresses or networks of proxies. What they say in X-Forwarded-For and X-Forwarded-Proto is "
        "believed.",
    )
    max_body_size: int = Field(
        1_048_576, ge=1024, le=104_857_600, description="Bytes that the body of a request may have."
    )
    shutdown_timeout: float = Field(
        10.0, ge=0, le=3600, description="Seconds that running executions get to end when Attune is stopped."
    )


class Database(_Section):
    url: str = Field(
        "",
        description="Any PostgreSQL from 15 on, as postgresql://user:password@host:5432/name. Empty: the one that "
        "Attune brings along and runs itself.",
    )
    user: str = Field(
        "",
        description="As root only: the system user that runs the database that Attune brings along. Empty: the "
        "first of attune, postgres, nobody that exists.",
    )
    binaries: str = Field(
        "", description="The folder with initdb, postgres and psql. Empty: those that were installed with Attune."
    )
    max_connections: int = Field(12, ge=4, le=1000, description="Connections to the database, at most.")


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is worth a line.")
    format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="How lines look on stderr. auto: pretty on a terminal, JSON elsewhere."
    )


class Auth(_Section):
    anonymous: Literal["off", "read"] = Field(
        "off",
        description="What callers without a token may do. read: look at definitions, events, enforcements and "
        "executions; only when listening on loopback.",
    )
    access_token_lifetime: int = Field(
        3600, ge=60, le=2_592_000, description="Seconds for which an access token is good."
    )
    refresh_token_lifetime: int = Field(
        604_800, ge=60, le=31_536_000, description="Seconds for which a refresh token is good."
    )


class Bus(_Section):
    max_attempts: int = Field(5, ge=1, le=20, description="How often a delivery is tried before it is a dead letter.")
    trace_days: int = Field(3, ge=1, le=365, description="Days for which the trace of messages is kept.")
    max_backlog: int = Field(
        500_000,
        ge=1000,
        le=100_000_000,
        description="Deliveries that may wait. When more do, nothing is taken from outside (429) until a tenth less "
        "do.",
    )


class Storage(_Section):
    min_free: int = Field(
        500_000_000,
        ge=0,
        le=1_000_000_000_000_000,
        description="Bytes that must be free where the data lies. With less, nothing is taken from outside (503) and "
        "timers wait, until a tenth more are. 0: the disk may fill.",
    )


class Retention(_Section):
    days: int = Field(
        30,
        ge=1,
        le=36_500,
        description="Days for which history is kept: events with all that became of them, executions with their logs. "
        "What has not ended is kept longer.",
    )
    max_bytes: int = Field(
        10_000_000_000,
        ge=1_000_000,
        le=1_000_000_000_000_000,
        description="Bytes that history may take, logs included. Beyond them the oldest goes before its days are over, "
        "but nothing that is younger than an hour.",
    )
    dead_letter_days: int = Field(
        90,
        ge=1,
        le=36_500,
        description="Days for which a dead letter is kept. One that something still waits for is kept longer.",
    )


class Rules(_Section):
    max_loops: int = Field(
        10,
        ge=1,
        le=100,
        description="How often a rule may, in a minute, cause an event that fires it, before it is stopped.",
    )


class Alerts(_Section):
    failures: int = Field(
        5,
        ge=1,
        le=1000,
        description="How often in a row a rule or an action has to fail before that is an alert. A failure that is "
        "tried again does not count.",
    )
    cooldown: int = Field(
        3600,
        ge=1,
        le=604_800,
        description="Seconds for which there is no further alert about the same.",
    )


class Worker(_Section):
    concurrency: int = Field(32, ge=1, le=10_000, description="Executions that run at once.")
    default_timeout: int = Field(
        300, ge=1, le=604_800, description="Seconds that an action may run if it does not say so itself."
    )
    kill_grace: float = Field(5.0, ge=0, le=600, description="Seconds between SIGTERM and SIGKILL.")
    max_log_bytes: int = Field(
        10_485_760,
        ge=1024,
        le=10_737_418_240,
        description="Bytes of stdout, and of stderr, that are kept of an execution.",
    )
    pass_env: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = Field(
        [], description="Names of environment variables of Attune that actions get as well."
    )


class Packs(_Section):
    dirs: list[str] = Field(
        [],
        description="Folders whose sub-folders are packs. They are read when Attune starts, and again when something "
        "in them changes. Empty: the folder packs in the data directory.",
    )


class Metrics(_Section):
    public: bool = Field(False, description="Whether everybody who reaches the server may read /metrics.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: Server = Server()
    database: Database = Database()
    log: Log = Log()
    auth: Auth = Auth()
    bus: Bus = Bus()
    storage: Storage = Storage()
    retention: Retention = Retention()
    rules: Rules = Rules()
    alerts: Alerts = Alerts()
    worker: Worker = Worker()
    packs: Packs = Packs()
    metrics: Metrics = Metrics()


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from the file `path`, if there is one, the environment and `overrides`, which win.

    Raises StartError naming file or variable, key and reason for everything that is unknown or wrong.
    """
    overrides = overrides or {}
    content, faults = _read(path)
    faults.extend(_variable_faults(os.environ))

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, content)

    try:
        if not faults:
            return Loaded(**dict(overrides))
    except ValidationError as error:
        faults = [_fault(tuple(map(str, item["loc"])), item, overrides, path) for item in error.errors()]
    raise StartError("The settings are wrong:\n" + "\n".join(f"  - {fault}" for fault in faults))


def sections() -> dict[str, type[BaseModel]]:
    """The sections with their models, in the order in which they are documented."""
    return {
        name: field.annotation for name, field in Settings.model_fields.items() if isinstance(field.annotation, type)
    }


def _read(path: Path | None) -> tuple[dict[str, Any], list[str]]:
    """What a file says, and what keeps it from being used."""
    if path is None:
        return {}, []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"{path}: cannot be read: {error.strerror}"]
    except ValueError as error:
        return {}, [f"{path}: is not TOML: {error}"]
    # Sources are merged before they are checked, so what is no section would vanish behind one.
    loose = [name for name, value in content.items() if name in sections() and not isinstance(value, dict)]
    return content, [f"{path}: {name} is a section: write [{name}], and its keys below" for name in loose]


def _variable_faults(environment: Mapping[str, str]) -> Iterator[str]:
    for variable, text in environment.items():
        if not variable.upper().startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable[len(ENVIRONMENT_PREFIX) :].lower()
        section, delimiter, key = name.partition("__")
        what = _section_fault(section, text, key) if delimiter else _lone_fault(name)
        if what:
            yield f"environment variable {variable}: {what}"


def _section_fault(section: str, text: str, key: str) -> str | None:
    if section not in sections():
        return f"there is no section {section!r}{_did_you_mean(section, sections())}"
    field = sections()[section].model_fields.get(key)
    if field is None or get_origin(field.annotation) is not list:
        return None
    try:
        is_list = isinstance(json.loads(text), list)
    except ValueError:
        is_list = False
    return None if is_list else f'{section}.{key}: should be a JSON list, such as ["one", "two"]'


def _lone_fault(name: str) -> str | None:
    """What is wrong with a variable that names no section, of which Attune has some, and gives others to actions."""
    for section, model in sections().items():
        if name == section:
            return f"{section} is a section: set {_variable(section, 'KEY')}"
        if name.startswith(f"{section}_") and name.removeprefix(f"{section}_") in model.model_fields:
            return f"is unknown; did you mean {_variable(section, name.removeprefix(f'{section}_'))}?"
    return None


def _fault(place: tuple[str, ...], error: "ErrorDetails", overrides: Mapping[str, Any], path: Path | None) -> str:
    key = ".".join(place)
    where = _origin(place, overrides, path)
    if error["type"] == "extra_forbidden":
        known = sections()[place[0]].model_fields if len(place) > 1 else sections()
        return f"{where}: {key} is unknown{_did_you_mean(place[-1], known)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message[0].lower()}{message[1:]}"


def _origin(place: tuple[str, ...], overrides: Mapping[str, Any], path: Path | None) -> str:
    """Who said so: the last to be asked of those who say anything about the key."""
    section, *keys = place
    if not keys:
        return str(path)
    if keys[0] in overrides.get(section, {}):
        return "command line"
    wanted = _variable(section, keys[0])
    for variable in os.environ:
        if variable.upper() == wanted or variable.upper().startswith(f"{wanted}__"):
            return f"environment variable {variable}"
    return str(path)


def _variable(section: str, key: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{section}__{key}".upper()


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
