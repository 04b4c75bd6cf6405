"""The docs tell the truth."""

import re
from pathlib import Path

import pytest

from attune.api import problems
from attune.api.endpoints import Endpoint
from attune.bus.messages import Message
from attune.bus.topology import TOPOLOGY
from attune.cli.root import app
from attune.cli.talk import Exit
from attune.settings import sections
from tests.api.routes import ENDPOINTS
from tests.docs import commands, endpoints, routing

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def test_the_page_on_routing_is_the_routing_table() -> None:
    assert routing.PATH.read_text() == routing.render(TOPOLOGY), "run: python -m tests.docs.routing"


@pytest.mark.parametrize("message", TOPOLOGY.messages, ids=lambda message: message.__name__)
def test_every_message_is_on_the_page_on_routing(message: type[Message]) -> None:
    assert f"| {message.__name__} |" in routing.PATH.read_text()


def test_the_page_on_http_is_the_routes() -> None:
    assert endpoints.PATH.read_text() == endpoints.render(), "run: python -m tests.docs.endpoints"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
def test_every_route_is_on_the_page_on_http_and_says_what_it_is_for(endpoint: Endpoint) -> None:
    assert f"`{endpoint.method}`" in endpoints.PATH.read_text()
    assert f"`{endpoint.path}` | {endpoint.summary} |" in endpoints.PATH.read_text()


@pytest.mark.parametrize("code", sorted({*problems._CODE.values(), *(kind.code for kind in problems._STATUS)}))
def test_every_error_code_is_on_the_page_on_http(code: str) -> None:
    assert f"`{code}`" in endpoints.PATH.read_text()


def test_the_page_on_the_command_line_is_the_commands() -> None:
    assert commands.PATH.read_text() == commands.render(), "run: python -m tests.docs.commands"


@pytest.mark.parametrize("typed", commands.commands())
def test_every_command_is_on_the_page_on_the_command_line(typed: str) -> None:
    assert f"\n## attune {typed}\n" in commands.PATH.read_text()


@pytest.mark.parametrize("number", [exit_code.value for exit_code in Exit])
def test_every_exit_code_is_on_the_page_on_the_command_line(number: int) -> None:
    assert f"\n| {number} | " in commands.PATH.read_text()


@pytest.mark.parametrize("key", [f"{name}.{key}" for name, model in sections().items() for key in model.model_fields])
def test_every_setting_is_in_the_config_file(key: str) -> None:
    section, _, name = key.partition(".")
    part = (ROOT / "config.toml").read_text().partition(f"\n[{section}]\n")[2].partition("\n[")[0]
    assert f"\n#{name} = " in part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", page.read_text()):
        if section in sections():
            assert key in sections()[section].model_fields, f"{page.name} names {section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_types_exists(page: Path) -> None:
    known = _commands()
    nouns = {path[0] for path in known}
    for typed in re.findall(r"(?:\.venv/bin/|`|^)attune ([a-z]+(?: [a-z]+)?)", page.read_text(), re.MULTILINE):
        words = tuple(typed.split())
        is_command = words in known or words[:1] in known
        assert is_command or (len(words) == 1 and words[0] in nouns), f"{page.name} types: attune {typed}"


def test_the_readme_has_its_two_lines() -> None:
    text = (ROOT / "README.md").read_text()
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/attune serve --demo" in text
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest" in text


def _commands() -> set[tuple[str, ...]]:
    """Every command, as the words that it is typed with."""
    found: set[tuple[str, ...]] = set()
    for command in app.registered_commands:
        assert command.callback is not None
        found.add((command.name or command.callback.__name__,))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        noun = str(group.typer_instance.info.name)
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            found.add((noun, command.name or command.callback.__name__))
    return found
