"""The name of the machine's time zone."""

from pathlib import Path

import pytest

from attune.cli.zones import machine_zone


@pytest.mark.parametrize(
    ("variable", "link", "file", "zone"),
    [
        ("Asia/Tokyo", "/usr/share/zoneinfo/Europe/Berlin", None, "Asia/Tokyo"),  # TZ comes first
        (":Asia/Tokyo", None, None, "Asia/Tokyo"),  # as POSIX has it
        ("/usr/share/zoneinfo/Asia/Tokyo", None, None, "Asia/Tokyo"),
        ("CET-1CEST", "/usr/share/zoneinfo/Europe/Berlin", None, None),  # a rule without a name, and no guess
        (None, "/usr/share/zoneinfo/Europe/Berlin", "Asia/Tokyo\n", "Europe/Berlin"),
        (None, "../usr/share/zoneinfo/posix/Etc/UTC", None, "Etc/UTC"),
        (None, "/var/db/timezone/zoneinfo/Europe/Berlin", None, "Europe/Berlin"),  # macOS
        ("", None, "Asia/Tokyo\n", "Asia/Tokyo"),  # Debian, where localtime is a copy
        (None, "/somewhere/else", "Asia/Tokyo\n", "Asia/Tokyo"),
        (None, None, None, None),
        (None, None, "Mars/Olympus", None),
        (None, None, "", None),
    ],
)
def test_a_machine_tells_its_zone(
    tmp_path: Path, variable: str | None, link: str | None, file: str | None, zone: str | None
) -> None:
    localtime, timezone = tmp_path / "localtime", tmp_path / "timezone"
    if link is not None:
        localtime.symlink_to(link)
    if file is not None:
        timezone.write_text(file)
    environment = {} if variable is None else {"TZ": variable}
    assert machine_zone(environment, localtime, timezone) == zone


def test_a_variable_that_names_the_link_means_the_link(tmp_path: Path) -> None:
    localtime = tmp_path / "localtime"
    localtime.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert machine_zone({"TZ": f":{localtime}"}, localtime, tmp_path / "timezone") == "Europe/Berlin"
