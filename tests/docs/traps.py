"""Writes the register of traps in `docs/reliability.md` from the tests that carry their numbers:
`python -m tests.docs.traps`."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
PATH = TESTS.parent / "docs" / "reliability.md"
HEADING = "## The register of traps\n"

_INTRODUCTION = """
What went wrong in a distributed implementation of the same platform, and what keeps it from going wrong here: tests
that carry the number in their names or beside their claims, or a construction in which it cannot be. The numbers have
gaps. This part is written from the tests by `python -m tests.docs.traps`, and a test keeps it true.

| Trap | What went wrong | What keeps it from going wrong here |
|---|---|---|
"""


class Trap(NamedTuple):
    """What went wrong, and what rules it out or why it does not concern this release; empty where tests say all."""

    what: str
    why_not: str = ""


_NO_WORKFLOWS = "Not there yet: workflows."
_NO_ARTIFACTS = "Not there yet: artifacts."

REGISTER: dict[int, Trap] = {
    1: Trap("The queue of dead letters was bound with a key that no dead letter had: each was dropped."),
    2: Trap("Limits of queues were configured and never applied.", "A queue has no settings of its own."),
    3: Trap(
        "A queue that was declared otherwise than before left the service without a consumer.",
        "A queue is a name in `attune.delivery`, and has nothing that could be declared in two ways.",
    ),
    4: Trap("An error of the database that would have passed made a message undeliverable."),
    5: Trap("A failed message came again at once, without end and without being counted."),
    6: Trap("That a rule could not be evaluated was logged, and its enforcement was missing."),
    7: Trap("A connection that ended left a service that consumed nothing and called itself healthy."),
    8: Trap("A message without a queue vanished."),
    9: Trap("One message after the other, and one that slept held up its queue."),
    10: Trap("What was delivered twice was done twice."),
    11: Trap("One type of message had two kinds of payload."),
    12: Trap("Exchanges and keys were spelled in several places, and differed."),
    13: Trap("Bindings with wildcards brought messages of other types."),
    14: Trap("Consumers of several types shared a queue."),
    15: Trap(
        "Two consumers had one tag, and the second was refused.",
        "There are no tags: a queue has one loop in one process (`bus/consumers.py`), and one process owns the "
        "database (T-102).",
    ),
    16: Trap("A queue that nobody consumed grew until the disk was full."),
    17: Trap("A type of message had no queue, and what was published vanished."),
    18: Trap("Queues of workers that were gone stayed for ever."),
    19: Trap("A message and an execution had the same deadline, and two parts ended the same execution."),
    20: Trap("Of the services that had to hear of a change, one did."),
    21: Trap("A change that was missed was missed until the next restart."),
    22: Trap("States were spelled in several ways."),
    23: Trap("Two parts told of one end, later none: a slot was freed twice, or never."),
    24: Trap("A row was written, and its message published if that went well."),
    25: Trap("What was under way when queues got other names had to be removed by hand."),
    26: Trap("A dead letter ended an execution, and nobody who waited was told."),
    27: Trap("A service that stopped refused messages, and they were lost."),
    30: Trap("That no worker was free was recognised by a text, and one of its texts was forgotten."),
    31: Trap("That a policy forbade something was recognised by a text."),
    32: Trap("A worker ran whatever it was sent: what was cancelled came back to life, and ran twice."),
    33: Trap("A dispatch was acknowledged before its execution ended."),
    34: Trap("An action that could not be loaded left its execution running for ever."),
    35: Trap("Every process that ended counted as a success in the message, whatever the row said."),
    36: Trap("That an execution was cancelled was recognised by a text, which a script could print."),
    37: Trap("What ran too long was `failed` like anything else."),
    38: Trap("Parameters were written completely before output was read: both sides waited."),
    39: Trap("Variables of the environment were documented and never set."),
    40: Trap("A limit of time stood in the code in two places, and the setting changed neither."),
    41: Trap("The timeout and the retries of an action were read and not used."),
    42: Trap("What retried executions was never started."),
    43: Trap("Secrets of the system were mixed into the parameters of every action."),
    44: Trap("A retry was a sleep in the consumer: it held up all others, and was lost at a restart."),
    45: Trap("`abandoned` was no end for those who wait for one."),
    46: Trap("Kinds of transitions were recognised by parts of their text.", _NO_WORKFLOWS),
    47: Trap("A task for each item of an empty list never ended.", _NO_WORKFLOWS),
    48: Trap("A task without an action was skipped, and its workflow hung.", _NO_WORKFLOWS),
    49: Trap("A join that nothing could satisfy any more was waited for.", _NO_WORKFLOWS),
    50: Trap("Keys of the configuration were not read."),
    51: Trap("Keys of tasks were accepted and did nothing.", f"{_NO_WORKFLOWS} Unknown keys are refused (T-79)."),
    52: Trap("Names that templates could use were always null.", _NO_WORKFLOWS),
    53: Trap("A condition that erred counted as success.", _NO_WORKFLOWS),
    54: Trap("Policies were looked at on one way to a worker, and not on the other.", "Not there yet: policies."),
    55: Trap("The end of a workflow told nobody.", _NO_WORKFLOWS),
    56: Trap("A task could not be visited twice.", _NO_WORKFLOWS),
    57: Trap("Tasks began in an order by chance.", _NO_WORKFLOWS),
    58: Trap("A child that a policy cancelled left its parent waiting.", _NO_WORKFLOWS),
    59: Trap("The start of a workflow was another moment each time it was looked at.", _NO_WORKFLOWS),
    60: Trap("A task without input had the parameters of its parent.", _NO_WORKFLOWS),
    61: Trap("A workflow that was shipped could not be loaded, which was only logged."),
    62: Trap("A successor that could not be dispatched left its workflow hanging.", _NO_WORKFLOWS),
    70: Trap("An event whose rule was deleted was for all rules of its trigger."),
    71: Trap("That a rule was deleted was told to nobody, and its timer went on."),
    72: Trap("Several services ran the same timer, and each fired."),
    73: Trap("A condition on a missing field lost the enforcement; one on no payload always matched."),
    74: Trap("All rules were loaded for each event."),
    75: Trap("Cron ignored time zones; a restart began intervals anew and lost what was missed."),
    76: Trap("The loader read other keys than the packs had."),
    77: Trap("The code wrote a word that the CHECK of its column did not allow."),
    78: Trap("What was wrong with a pack was a warning, and the half of it was loaded."),
    79: Trap("Keys of files were ignored."),
    80: Trap("Rules of a pack began to fire after the next restart."),
    81: Trap("Many routes asked for no permission."),
    82: Trap("Who might send which events was not checked.", "Tokens for some triggers only come with sensors."),
    83: Trap(
        "Anybody could write the address that a webhook was checked against.", "Not there yet: webhooks. Elsewhere:"
    ),
    84: Trap("What a person answered was not checked."),
    85: Trap("Two loops ended the same inquiries."),
    86: Trap(
        "LISTEN was used in a way that heard nothing.",
        "There is no LISTEN: who commits hands over in memory, and the row is the truth (`bus/transaction.py`).",
    ),
    87: Trap("Notifications lacked their type, and the browser dropped them."),
    88: Trap("A runtime had several names, and no worker was found."),
    89: Trap("The schema was part of some statements and not of others."),
    90: Trap("Rows of artifacts were removed, and their files were not.", _NO_ARTIFACTS),
    91: Trap("To cancel raced with the end, and was not sent again."),
    92: Trap("Parameters were logged, secrets included."),
    93: Trap("An execution of nobody was run as the first identity."),
    94: Trap("Whoever had signed in could cancel any execution."),
    95: Trap("Installing a pack replaced the one in use, and removed it when that failed."),
    96: Trap("To register a pack ran commands of its content on the server."),
    97: Trap("A route gave tokens to anybody."),
    98: Trap("Tokens of other kinds went around the permissions."),
    99: Trap("A route read and wrote any file whose path it was given.", f"{_NO_ARTIFACTS} Elsewhere:"),
    100: Trap("Executions were taken from a worker that was not heard of, and finished all the same."),
    101: Trap("A worker that was not heard of for a while was never used again."),
    102: Trap("Two processes with one name shared their queues."),
}


def carriers() -> dict[int, dict[str, list[str]]]:
    """The tests that carry each number, by file; without names where the whole file does."""
    found: dict[int, dict[str, list[str]]] = defaultdict(dict)
    for path in sorted(TESTS.glob("*/test_*.py")):
        for number, names in _marks(path.read_text()).items():
            found[number][path.relative_to(TESTS).as_posix()] = [name for name in names if name] if all(names) else []
    return found


def _marks(source: str) -> dict[int, list[str]]:
    """The numbers in a file, each with the names of the tests that carry it; "" stands for what is outside of tests."""
    lines = source.splitlines()
    marks: dict[int, list[str]] = defaultdict(list)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            for number in _numbers("\n".join([node.name, *lines[start : node.end_lineno]])):
                marks[number].append(node.name)
            lines[start : node.end_lineno] = [""] * ((node.end_lineno or start) - start)
    for number in _numbers("\n".join(lines)):
        marks[number].append("")
    return marks


def _numbers(text: str) -> set[int]:
    return {int(one or other) for one, other in re.findall(r"\bT-(\d{2,3})\b|\btest_t(\d{2,3})_", text)}


def render() -> str:
    """What stands below the heading."""
    found = carriers()
    return _INTRODUCTION + "".join(_row(number, trap, found.get(number, {})) for number, trap in REGISTER.items())


def _row(number: int, trap: Trap, tests: dict[str, list[str]]) -> str:
    keeps = " ".join(filter(None, [trap.why_not, "; ".join(_listed(tests))]))
    return f"| T-{number:02} | {trap.what} | {keeps} |\n"


def _listed(tests: dict[str, list[str]]) -> Iterator[str]:
    for file, names in tests.items():
        yield f"`{file}`" + (": " + ", ".join(f"`{name}`" for name in names) if names else "")


def page() -> str:
    """The page as it should be."""
    return PATH.read_text().partition(HEADING)[0] + HEADING + render()


if __name__ == "__main__":
    PATH.write_text(page())
