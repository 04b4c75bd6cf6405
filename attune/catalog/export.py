"""Definitions as files again: rules that people made as YAML, packs as an archive."""

import io
import re
import tarfile
from collections.abc import Sequence
from typing import Any, Final

import yaml

from attune.catalog.model import Overlap, Rule
from attune.catalog.sources import Source

_WIDTH: Final = 110
_ODD: Final = re.compile("[\r\x85\u2028\u2029\ufeff]")


class _Dumper(yaml.SafeDumper):
    """Writes for people: text of several lines as such, and everything where it is meant."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.strip("\n") else None
    if _ODD.search(text):
        # YAML reads these as the end of a line unless they are written as escapes.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def rule_yaml(rule: Rule) -> str:
    """The file of a rule that says the same as the rule."""
    written: dict[str, Any] = {"ref": rule.ref, "label": rule.label}
    if rule.description is not None:
        written["description"] = rule.description
    written["enabled"] = rule.enabled
    written |= {"overlap": rule.overlap} if rule.overlap != Overlap.ALLOW else {}
    written["trigger_ref"] = rule.trigger_ref
    written |= {"trigger_params": rule.trigger_params} if rule.trigger_params else {}
    written |= {"conditions": rule.conditions} if rule.conditions != [] else {}
    written["action_ref"] = rule.action_ref
    written |= {"action_params": rule.action_params} if rule.action_params else {}
    return yaml.dump(written, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def archive(ref: str, files: Sequence[Source]) -> bytes:
    """The files of a pack as a tar.gz, in a folder of the pack's name."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for file in files:
            if file.content is not None:
                entry = tarfile.TarInfo(f"{ref}/{file.path}")
                entry.size = len(file.content)
                entry.mode = 0o755 if file.executable else 0o644
                tar.addfile(entry, io.BytesIO(file.content))
    return target.getvalue()
