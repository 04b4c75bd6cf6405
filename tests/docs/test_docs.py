"""The docs tell the truth."""

import re
from pathlib import Path

import pytest

from attune.bus.messages import Message
from attune.bus.topology import TOPOLOGY
from attune.cli.root import app
from tests.docs import routing

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def test_the_page_on_routing_is_the_routing_table() -> None:
    assert routing.PATH.read_text() == routing.render(TOPOLOGY), "run: python -m tests.docs.routing"


@pytest.mark.parametrize("message", TOPOLOGY.messages, ids=lambda message: message.__name__)
def test_every_message_is_on_the_page_on_routing(message: type[Message]) -> None:
    assert f"| {message.__name__} |" in routing.PATH.read_text()


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
