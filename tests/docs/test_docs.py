"""The docs tell the truth."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attune.api import problems
from attune.api.endpoints import Endpoint
from attune.base.crash_points import POINTS
from attune.bus.messages import Message, NotificationType
from attune.bus.topology import TOPOLOGY
from attune.cli.root import app
from attune.cli.talk import Exit
from attune.settings import sections
from tests.api.routes import ENDPOINTS
from tests.docs import commands, endpoints, reference, routing, traps
from tests.support.engines import pack

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
_ORDER = ("docs/quick-start.md", "docs/howto-home-server.md", "docs/reference/settings.md", "docs/architecture.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
TRAPS = {*range(1, 28), *range(30, 63), *range(70, 103)}
"""The numbers of the register of traps."""


def test_the_page_on_routing_is_the_routing_table() -> None:
    assert routing.PATH.read_text() == routing.render(TOPOLOGY), "run: python -m tests.docs.routing"


@pytest.mark.parametrize("message", TOPOLOGY.messages, ids=lambda message: message.__name__)
def test_every_message_is_on_the_page_on_routing(message: type[Message]) -> None:
    assert f"| {message.__name__} |" in routing.PATH.read_text()


def test_the_page_on_http_is_the_routes() -> None:
    assert endpoints.PATH.read_text() == endpoints.render(), "run: python -m tests.docs.endpoints"


@pytest.mark.parametrize("message", [one for one in TOPOLOGY.messages if one.about], ids=lambda one: one.__name__)
def test_what_a_discard_does_is_told_of_every_message_that_something_waits_for(message: type[Message]) -> None:
    assert f"\n| {message.__name__} | " in (ROOT / "docs" / "dead-letters.md").read_text()


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


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_of_the_reference_is_the_code(name: str) -> None:
    written = (reference.FOLDER / name).read_text()
    assert written == reference.PAGES[name](), "run: python -m tests.docs.reference"


def test_the_reference_says_what_every_key_of_a_pack_means_and_nothing_of_others() -> None:
    keys = [(file, key) for file, model in reference.FILES.items() for key in model.model_fields]
    assert all(reference.meaning_of(file, key) for file, key in keys)
    assert set(reference.KEYS) <= {f"{file} {key}" for file, key in keys} | {key for _, key in keys}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        aim = page.parent / target if target else page
        assert aim.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", aim.read_text(), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{page.name}: #{anchor}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set[Path](), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        linked = re.findall(r"\]\((?!https?:)([^)#]+\.md)", page.read_text())
        new |= {(page.parent / target).resolve() for target in linked} - reached
    assert reached >= set(PAGES)


def test_the_readme_leads_on_from_quick_start_to_how_to_to_reference_to_explanation() -> None:
    read_on = (ROOT / "README.md").read_text().partition("## Read on")[2]
    places = [read_on.index(f"({page})") for page in _ORDER]
    assert places == sorted(places)


@pytest.mark.parametrize("word", re.findall(r"^\| \*\*(.+?)\*\*", GLOSSARY, re.MULTILINE))
def test_the_glossary_has_a_word_once_in_its_order(word: str) -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", GLOSSARY, re.MULTILINE)
    assert words.count(word) == 1
    assert words == sorted(words)


def test_the_tables_of_the_database_are_in_the_glossary() -> None:
    words = set(re.findall(r"^\| \*\*(.+?)\*\*", GLOSSARY, re.MULTILINE))
    assert {"action", "event", "enforcement", "execution", "identity", "pack", "rule", "trigger", "worker"} <= words


def test_the_pack_of_the_how_to_has_no_problems(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto-home-server.md").read_text()
    files = re.findall(r"^`/srv/attune/packs/(home/[^`]+)`[^\n]*:\n\n```\w+\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert len(files) == 6
    _checks_out(tmp_path / "home")


def test_the_files_of_the_quick_start_have_no_problems(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quick-start.md").read_text()
    files = re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", page, re.MULTILINE | re.DOTALL)
    CliRunner().invoke(app, ["pack", "new", "mine", "--dir", str(tmp_path)], catch_exceptions=False)
    for name, content in files:
        (tmp_path / name).write_text(content)
    assert len(files) == 3
    _checks_out(tmp_path / "mine")


def test_how_to_try_again_and_how_not_to_overlap_are_told_in_files_without_problems(tmp_path: Path) -> None:
    files = {
        "actions/upload.yaml": _example("actions.md", "## Trying again"),
        "actions/upload.sh": "",
        "rules/sync.yaml": _example("rules.md", "## Overlap").replace("shop.sync", "shop.upload"),
    }
    assert "retry_on: " in files["actions/upload.yaml"]
    assert "overlap: " in files["rules/sync.yaml"]
    _checks_out(pack(tmp_path, "shop", files))


def _example(page: str, heading: str) -> str:
    """The first YAML below a heading."""
    return (ROOT / "docs" / page).read_text().partition(heading)[2].partition("```yaml\n")[2].partition("```")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_types_exists(page: Path) -> None:
    known = {tuple(typed.split()) for typed in commands.commands()}
    groups = {path[:length] for path in known for length in range(1, len(path))}
    for typed in re.findall(r"(?:\.venv/bin/|`|^)attune ([a-z]+(?: [a-z]+){0,2})", page.read_text(), re.MULTILINE):
        words = tuple(typed.split())
        is_command = any(words[:length] in known for length in range(1, len(words) + 1))
        assert is_command or words in groups, f"{page.name} types: attune {typed}"


@pytest.mark.parametrize("kind", NotificationType)
def test_every_notification_is_on_the_page_on_live_views(kind: NotificationType) -> None:
    rows = [line for line in (ROOT / "docs" / "live.md").read_text().splitlines() if f"`{kind}`" in line]
    assert any(f"| `{kind.entity}` |" in line for line in rows)


def test_the_register_of_traps_is_what_the_tests_carry() -> None:
    assert traps.PATH.read_text() == traps.page(), "run: python -m tests.docs.traps"


def test_every_trap_is_guarded_or_ruled_out_and_no_test_carries_another_number() -> None:
    carried = traps.carriers()
    assert traps.REGISTER.keys() == TRAPS
    assert carried.keys() <= TRAPS
    assert [number for number, trap in traps.REGISTER.items() if not trap.why_not and number not in carried] == []


def test_every_crash_point_is_on_the_page_on_reliability_once_and_no_other() -> None:
    told = re.findall(r"^\| (`\w+\.\w+`(?:, `\w+\.\w+`)*) \| ", traps.PATH.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", " ".join(told))) == sorted(POINTS)


def test_the_readme_has_its_two_lines() -> None:
    text = (ROOT / "README.md").read_text()
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/attune serve --demo" in text
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest" in text


def _checks_out(pack: Path) -> None:
    checked = CliRunner().invoke(app, ["check", str(pack)], catch_exceptions=False)
    assert checked.output == f"{pack}: no problems\n"
