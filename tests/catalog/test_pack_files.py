"""What is wrong with the files of a pack is told with file, line and key: all of it, and nothing is loaded."""

import os
from itertools import count
from pathlib import Path

import pytest

from attune.catalog.files import checksum, read_pack, read_rule
from attune.catalog.model import Runtime
from attune.catalog.sources import read_sources
from attune.catalog.yamls import YamlError
from tests.support.engines import pack

ACTION = "ref: shop.pay\nlabel: Pay\nentry_point: pay.sh\n"
TRIGGER = "ref: shop.sold\nlabel: Sold\n"
RULE = "ref: shop.thank\nlabel: Thank\ntrigger_ref: shop.sold\naction_ref: core.echo\n"


def problems_of(folder: Path, files: dict[str, str], ref: str = "shop") -> list[str]:
    directory = pack(folder, ref, files)
    with pytest.raises(YamlError) as caught:
        read_pack(directory)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        # No YAML, or not what a pack needs of it.
        ("triggers/sold.yaml", "ref: shop.sold\nlabel: [Sold\n", "triggers/sold.yaml:3: is not YAML: "),
        ("triggers/sold.yaml", "ref: shop.sold\nlabel: \x01\n", "triggers/sold.yaml:2: is not YAML: it holds "),
        ("triggers/sold.yaml", "", "triggers/sold.yaml:1: expected a map with keys such as ref, label, "),
        ("triggers/sold.yaml", "- ref\n", "triggers/sold.yaml:1: expected a map with keys such as ref, label, "),
        ("triggers/sold.yaml", f"{TRIGGER}---\n{TRIGGER}", "triggers/sold.yaml:3: is not YAML: "),
        ("triggers/sold.yaml", f"{TRIGGER}label: Again\n", "triggers/sold.yaml:3: label: stands here twice"),
        (
            "triggers/sold.yaml",
            f"{TRIGGER}output: &a\n  x: {{}}\nparameters:\n  <<: *a\n",
            "triggers/sold.yaml:6: parameters.<<: maps cannot be merged",
        ),
        ("triggers/sold.yaml", f"{TRIGGER}enabled: !!set {{a}}\n", "triggers/sold.yaml:3: enabled: the tag "),
        ("triggers/sold.yaml", f"{TRIGGER}description: !secret x\n", "triggers/sold.yaml:3: description: cannot be "),
        ("triggers/sold.yaml", f"{TRIGGER}parameters:\n  ? [a]\n  : 1\n", "triggers/sold.yaml:3: parameters: a key "),
        # What PostgreSQL would not store, or change.
        ("triggers/sold.yaml", f'{TRIGGER}description: "a\\0"\n', "triggers/sold.yaml:3: description: holds a NUL"),
        ("triggers/sold.yaml", f'{TRIGGER}description: "\\ud83d"\n', "triggers/sold.yaml:3: description: holds half"),
        ("triggers/sold.yaml", f'{TRIGGER}parameters: {{"\\ud83d": {{}}}}\n', "triggers/sold.yaml:3: parameters: has "),
        ("rules/a.yaml", f"{RULE}action_params:\n  n: 1{'0' * 30}\n", "rules/a.yaml:6: action_params.n: has more than"),
        ("rules/a.yaml", f"{RULE}action_params:\n  n: 1{'0' * 5000}\n", "rules/a.yaml:6: action_params.n: cannot be"),
        ("rules/a.yaml", f"{RULE}action_params:\n  n: .inf\n", "rules/a.yaml:6: action_params.n: is NaN, infinite"),
        # Too much of it.
        ("triggers/sold.yaml", "[" * 500, "triggers/sold.yaml:1: is nested too deeply"),
        ("rules/a.yaml", f"{RULE}conditions: {'[' * 150}{']' * 150}\n", "rules/a.yaml:5: conditions.0.0"),
        ("rules/a.yaml", f"{RULE}conditions: &a [*a]\n", "rules/a.yaml:5: conditions.0.0"),
        ("triggers/sold.yaml", f"{TRIGGER}# {'x' * 1_000_000}\n", "triggers/sold.yaml:1: is larger than 1,000,000 byt"),
        # T-79: what is not known is refused, not dropped.
        ("triggers/sold.yaml", f"{TRIGGER}lable: Sold\n", "triggers/sold.yaml:3: lable: is unknown; did you mean 'la"),
        ("actions/pay.yaml", f"{ACTION}enabled: true\n", "actions/pay.yaml:4: enabled: is unknown; known are ref, "),
        ("actions/pay.yaml", f"{ACTION}output_schema: {{}}\n", "actions/pay.yaml:4: output_schema: is unknown; "),
        ("policies/one.yaml", "ref: shop.one\n", "policies: this release of Attune knows no policies"),
        ("actions/workflows/one.yaml", "a: 1\n", "actions/workflows: this release of Attune knows no workflows"),
        ("triggers/sold.yml", TRIGGER, "triggers/sold.yml: rename it to sold.yaml"),
        # T-76: nothing is read under another name than it is written.
        ("pack.yaml", "ref: shop\nname: Shop\nlabel: Shop\nversion: 1.0.0\n", "pack.yaml:2: name: is unknown; "),
        ("pack.yaml", "ref: shop\nlabel: Shop\nversion: 1.0.0\nconfig_schema: {}\n", "pack.yaml:4: config_schema: is"),
        # A type, a bound, a choice.
        ("rules/a.yaml", "trigger: sold\n", "rules/a.yaml:1: action: is required"),
        ("actions/pay.yaml", "ref: shop.pay\n", "actions/pay.yaml:1: entry_point: is required"),
        ("triggers/sold.yaml", "ref: shop.sold\nlabel: 3\n", "triggers/sold.yaml:2: label: should be a valid string"),
        ("triggers/sold.yaml", f"{TRIGGER}enabled: 'yes'\n", "triggers/sold.yaml:3: enabled: should be a valid bool"),
        ("pack.yaml", "ref: shop\nlabel: Shop\nversion: 1.0\n", "pack.yaml:3: version: should be a valid string"),
        ("actions/pay.yaml", f"{ACTION}timeout: 0\n", "actions/pay.yaml:4: timeout: should be greater than or equal"),
        ("actions/pay.yaml", f"{ACTION}runner_type: ruby\n", "actions/pay.yaml:4: runner_type: should be 'shell', '"),
        ("actions/pay.yaml", f"{ACTION}output_format: xml\n", "actions/pay.yaml:4: output_format: should be 'text', "),
        # Refs.
        ("pack.yaml", "ref: Shop\nlabel: Shop\nversion: 1.0.0\n", "pack.yaml:1: ref: 'Shop' is no pack ref: lower"),
        ("triggers/a.yaml", "ref: Sold\nlabel: Sold\n", "triggers/a.yaml:1: ref: 'shop.Sold' must be shop.name"),
        # Without one, the name of the file makes it.
        ("triggers/So ld.yaml", "label: Sold\n", "triggers/So ld.yaml:1: ref: 'shop.So ld' must be shop.name"),
        # Short forms.
        ("rules/a.yaml", f"{RULE}trigger: sold\n", "rules/a.yaml:5: trigger: says the same as trigger_ref; leave one "),
        (
            "rules/a.yaml",
            "acton: x\ntrigger: sold\naction: pay\n",
            "rules/a.yaml:1: acton: is unknown; did you mean 'a",
        ),
        ("rules/a.yaml", "trigger: 3\naction: pay\n", "rules/a.yaml:1: trigger: should be a valid string"),
        (
            "actions/pay.yaml",
            "entry_point: pay.sh\nparameters:\n  name: strng\n",
            "actions/pay.yaml:3: parameters.name: expected a type or a map like {type: string}; 'strng' is no type; di",
        ),
        (
            "triggers/a.yaml",
            "output: {a: 3}\n",
            "triggers/a.yaml:1: output.a: expected a type or a map like {type: str",
        ),
        (
            "actions/pay.yaml",
            "entry_point: pay.rb\n",
            "actions/pay.yaml:1: entry_point: nothing says what runs it: add",
        ),
        (
            "actions/pay.yaml",
            "entry_point: pay.sh\nrunner_type: native\n",
            "actions/pay.yaml:2: runner_type: native needs a file that can be run: chmod +x ",
        ),
        ("triggers/a.yaml", "ref: shop.a.b\nlabel: Sold\n", "triggers/a.yaml:1: ref: 'shop.a.b' must be shop.name"),
        ("triggers/a.yaml", "ref: shop.Sold\nlabel: Sold\n", "triggers/a.yaml:1: ref: 'shop.Sold' must be shop.name"),
        ("triggers/a.yaml", "ref: other.sold\nlabel: Sold\n", "triggers/a.yaml:1: ref: 'other.sold' must be shop.name"),
        # Schemas, at the line of the key.
        (
            "triggers/a.yaml",
            f"{TRIGGER}output:\n  price:\n    type: numbr\n",
            "triggers/a.yaml:5: output.price.type: is no schema: ",
        ),
        (
            "actions/pay.yaml",
            f"{ACTION}parameters:\n  pin:\n    type: string\n    secert: true\n",
            "actions/pay.yaml:7: parameters.pin.secert: is no keyword of JSON Schema; did you mean 'secret'?",
        ),
        (
            "pack.yaml",
            "ref: shop\nlabel: Shop\nversion: 1.0.0\nconf_schema:\n  tries: {type: integer}\nconfig:\n  tries: many\n",
            'pack.yaml:7: config.tries: it is not of type "integer"',
        ),
        # Scripts.
        ("actions/pay.yaml", ACTION.replace("pay.sh", "no.sh"), "actions/pay.yaml:3: entry_point: there is no file "),
        ("actions/pay.yaml", ACTION.replace("pay.sh", "../../x"), "actions/pay.yaml:3: entry_point: '../../x' leaves "),
        ("actions/pay.yaml", ACTION.replace("pay.sh", "/bin/sh"), "actions/pay.yaml:3: entry_point: '/bin/sh' leaves "),
        ("actions/pay.yaml", ACTION.replace("pay.sh", "."), "actions/pay.yaml:3: entry_point: there is no file "),
        (
            "actions/pay.yaml",
            f"{ACTION}runner_type: builtin\n",
            "actions/pay.yaml:4: runner_type: builtin is for the ",
        ),
    ],
    ids=count(1),
)
def test_a_broken_file_is_told_with_line_and_key(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (found,) = problems_of(tmp_path, {"actions/pay.sh": "", "actions/pay.rb": "", name: content})
    assert found.startswith(problem), found


def test_t78_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    files = {
        "pack.yaml": "ref: shop\nlabel: Shop\nversion: 1.0.0\nconf_schema: {a: 1}\n",
        "triggers/a.yaml": "lable: A\n",
        "triggers/b.yaml": TRIGGER,
        "triggers/c.yaml": TRIGGER,
        "actions/pay.yaml": ACTION,
        "rules/a.yaml": "[",
    }
    assert [problem.partition(": ")[0] for problem in problems_of(tmp_path, files)] == [
        "pack.yaml:4",
        "triggers/a.yaml:1",
        "triggers/c.yaml:1",
        "rules/a.yaml:1",
        "actions/pay.yaml:3",
    ]


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    directory = pack(tmp_path, "shop", {})
    (directory / "pack.yaml").write_bytes(b"ref: shop\nlabel: \xff\n")
    with pytest.raises(YamlError, match="wrong") as caught:
        read_pack(directory)
    assert "is not UTF-8" in caught.value.problems[0].what


def test_a_folder_without_a_pack_is_told(tmp_path: Path) -> None:
    with pytest.raises(YamlError) as caught:
        read_pack(tmp_path)
    what = "there is no such file: make one that says `ref: name`"
    assert [str(problem) for problem in caught.value.problems] == [f"{tmp_path}/pack.yaml:1: {what}"]


def test_the_values_of_a_file_are_what_its_author_meant(tmp_path: Path) -> None:
    values = """
        day: 2026-01-31
        time: 12:30
        late: 12:30:45
        quoted: "3"
        number: 3
        thousand: 1_000
        half: 0.5
        yes: yes
        on: "on"
        nothing:
        digest: !!binary aGk=
        """
    directory = pack(tmp_path, "shop", {"rules/thank.yaml": f"{RULE}action_params:{values}"})
    (rule,) = read_pack(directory).rules
    assert rule.content.action_params == {
        "day": "2026-01-31",
        "time": "12:30",
        "late": "12:30:45",
        "quoted": "3",
        "number": 3,
        "thousand": 1000,
        "half": 0.5,
        "yes": True,
        "on": "on",
        "nothing": None,
        "digest": "aGk=",
    }


def test_every_key_of_a_file_is_read(tmp_path: Path) -> None:
    files = {
        "pack.yaml": "ref: shop\nlabel: Shop\nversion: 1.2.3-rc.1\ndescription: D\nauthor: A\n"
        "email: a@b\nsystem: true\nconf_schema: {url: {type: string}, key: {type: string, required: true}}\n"
        "config: {url: x}\nmeta: {a: 1}\ntags: [t]\nruntime_deps: [python]\ndependencies: [core]\n",
        "triggers/sold.yaml": f"{TRIGGER}enabled: false\nparameters: {{a: {{}}}}\noutput: {{b: {{}}}}\n",
        "actions/pay.yaml": f"{ACTION}runner_type: python\ntimeout: 5\noutput_format: jsonl\nparameter_format: json\n",
        "actions/pay.sh": "",
        "rules/thank.yaml": f"{RULE}enabled: false\nconditions: [1]\ntrigger_params: {{a: 1}}\n",
        # Neither of these is a file of the pack.
        "triggers/.hidden.yaml": "[",
        "triggers/README.md": "[",
    }
    folder = read_pack(pack(tmp_path, "shop", files))
    assert (folder.pack.version, folder.pack.config, folder.pack.system) == ("1.2.3-rc.1", {"url": "x"}, True)
    assert [(one.ref, one.enabled, one.output) for one in folder.triggers] == [("shop.sold", False, {"b": {}})]
    assert [(one.runner_type, one.timeout, one.output_format) for one in folder.actions] == [("python", 5, "jsonl")]
    assert [(one.content.enabled, one.content.conditions) for one in folder.rules] == [(False, [1])]


@pytest.mark.parametrize(
    ("written", "runtime"),
    [
        ("shell", Runtime.SHELL),
        ("bash", Runtime.SHELL),
        ("sh", Runtime.SHELL),
        ("python", Runtime.PYTHON),
        ("python3", Runtime.PYTHON),
    ],
)
def test_t88_whatever_a_runtime_is_called_it_has_one_name(tmp_path: Path, written: str, runtime: Runtime) -> None:
    files = {"actions/pay.yaml": f"{ACTION}runner_type: {written}\n", "actions/pay.sh": ""}
    (action,) = read_pack(pack(tmp_path, "shop", files)).actions
    assert action.runtime is runtime


@pytest.mark.parametrize(
    "schema",
    [
        "{url: {type: string, required: true}}",
        "{type: object, properties: {url: {type: string}}, required: [url]}",
    ],
)
def test_configuration_that_is_required_may_come_later(tmp_path: Path, schema: str) -> None:
    manifest = f"ref: shop\nlabel: Shop\nversion: 1.0.0\nconf_schema: {schema}\n"
    assert read_pack(pack(tmp_path, "shop", {"pack.yaml": manifest})).pack.config == {}


def test_what_may_be_left_out_follows_from_file_and_pack(tmp_path: Path) -> None:
    files = {
        "pack.yaml": "ref: shop\n",
        "triggers/just-sold.yaml": "output: {price: number}\n",
        "actions/pay_now.yaml": "entry_point: pay.py\nparameters: {sum: integer, card: {type: string, secret: true}}\n",
        "actions/pay.py": "",
        "actions/bare.yaml": "entry_point: bare\n",
        "actions/bare": "",
        "actions/run.yaml": "entry_point: run.rb\n",
        "actions/run.rb": "",
        "rules/thank.yaml": "trigger: just-sold\naction: pay_now\n",
        "rules/other.yaml": "ref: named\ntrigger_ref: core.crontimer\naction: core.echo\n",
    }
    directory = pack(tmp_path, "shop", files)
    (directory / "actions/run.rb").chmod(0o755)
    folder = read_pack(directory)
    assert (folder.pack.label, folder.pack.version) == ("Shop", "0.0.0")
    assert [(one.ref, one.label, one.output) for one in folder.triggers] == [
        ("shop.just-sold", "Just sold", {"price": {"type": "number"}})
    ]
    assert [(one.ref, one.label, one.runtime.value) for one in folder.actions] == [
        # What is no suffix at all is for the shell, as in packs of the platform.
        ("shop.bare", "Bare", "core.shell"),
        ("shop.pay_now", "Pay now", "core.python"),
        ("shop.run", "Run", "core.native"),
    ]
    assert folder.actions[1].parameters == {"sum": {"type": "integer"}, "card": {"type": "string", "secret": True}}
    assert [(one.content.ref, one.content.trigger_ref, one.content.action_ref) for one in folder.rules] == [
        ("shop.named", "core.crontimer", "core.echo"),
        ("shop.thank", "shop.just-sold", "shop.pay_now"),
    ]


def test_a_json_schema_has_no_short_form(tmp_path: Path) -> None:
    schema = "{type: object, properties: {type: {type: string}}}"
    directory = pack(tmp_path, "shop", {"triggers/sold.yaml": f"parameters: {schema}\noutput: {{type: string}}\n"})
    (trigger,) = read_pack(directory).triggers
    assert trigger.parameters == {"type": "object", "properties": {"type": {"type": "string"}}}
    assert trigger.output == {"type": {"type": "string"}}


def test_a_rule_outside_of_a_pack_says_which_is_its(tmp_path: Path) -> None:
    path = tmp_path / "thank.yaml"
    path.write_text("ref: shop.thank\ntrigger: sold\naction: core.echo\n")
    rule = read_rule(path).content
    assert (rule.ref, rule.trigger_ref, rule.action_ref) == ("shop.thank", "shop.sold", "core.echo")
    path.write_text("trigger: sold\naction: core.echo\n")
    assert read_rule(path, "shop").content.ref == "shop.thank"
    with pytest.raises(YamlError) as caught:
        read_rule(path)
    assert caught.value.problems[0].what.startswith("ref: outside of a pack a rule must say its pack")


def test_what_is_hidden_or_made_by_tools_is_no_file_of_a_pack(tmp_path: Path) -> None:
    kept = ["README.md", "actions/pay.sh", "lib/a/b.py", "pack.yaml"]
    others = [".git/config", "lib/__pycache__/b.pyc", "node_modules/x.js", "venv/bin/python", "rules/a.yaml~"]
    directory = pack(tmp_path, "shop", dict.fromkeys([*kept[:-1], *others], "x"))
    os.mkfifo(directory / "pipe")
    (directory / "large").write_bytes(b"x" * 1_000_001)
    sources = read_sources(directory)
    assert sorted(source.path for source in sources) == sorted([*kept, "large"])
    assert [source.path for source in sources if source.content is None] == ["large"]


def test_the_checksum_is_of_what_is_read(tmp_path: Path) -> None:
    directory = pack(tmp_path, "shop", {"triggers/sold.yaml": TRIGGER, "actions/pay.sh": "one"})
    seen = {checksum(directory)}
    (directory / "actions/pay.sh").write_text("two")
    seen.add(checksum(directory))
    (directory / "actions/pay.sh").chmod(0o755)
    seen.add(checksum(directory))
    assert len(seen) == 3
    before = checksum(directory)
    (directory / ".swp").write_text("read me")
    assert checksum(directory) == before
    (directory / "triggers/sold.yaml").rename(directory / "triggers/bought.yaml")
    renamed = checksum(directory)
    assert renamed != before
    (directory / "triggers/bought.yaml").write_text(f"{TRIGGER}#\n")
    assert checksum(directory) not in {before, renamed}
