"""What an execution asks for belongs to its chain, and a chain that comes round too fast is stopped."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from attune.database.embedded import Cluster
from tests.api.sites import Site, new_database, new_folder, site_on
from tests.support.engines import pack
from tests.support.waiting import until

EVENTS, EXECUTE = "/api/v1/events", "/api/v1/executions/execute"
MOST = 3

# Says that it happened again, as curl would.
AGAIN = """\
import http.client, json, os, socket, sys
asked = json.load(sys.stdin)
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(asked["socket"])
headers = {"Content-Type": "application/json", "traceparent": os.environ["TRACEPARENT"]}
connection.request("POST", "/api/v1/events", json.dumps({"trigger_ref": "loops.again"}), headers)
print(connection.getresponse().read().decode())
"""


@pytest.fixture(scope="module")
async def site(cluster: Cluster, base: Any) -> AsyncIterator[Site]:
    """A server with an action that causes the event that fires it."""
    folder = new_folder(base)
    files = {
        "triggers/again.yaml": "ref: loops.again\nlabel: Again\n",
        "actions/again.yaml": "entry_point: again.py\nrunner_type: python\noutput_format: json\n"
        "parameters: {socket: string}\n",
        "actions/again.py": AGAIN,
    }
    pack(folder / "packs", "loops", files)
    async with new_database(cluster) as dsn, site_on(dsn, folder, {"rules": {"max_loops": MOST}}) as made:
        yield made


async def executed(site: Site) -> Any:
    """An execution that somebody asked for."""
    made = await site.data("POST", f"{EXECUTE}?wait=30", json={"action_ref": "core.noop"})
    return await site.data("GET", f"/api/v1/executions/{made['id']}")


def header(execution: dict[str, Any], **other: Any) -> dict[str, str]:
    """What the processes of an execution are to send."""
    chain = other.get("chain", execution["correlation_id"]).replace("-", "")
    return {"traceparent": f"00-{chain}-{other.get('id', execution['id']):016x}-01"}


async def test_an_event_belongs_to_the_chain_of_the_execution_that_causes_it(site: Site) -> None:
    execution = await executed(site)

    event = await site.data("POST", EVENTS, json={"trigger_ref": "shop.sold"}, headers=header(execution))

    assert (event["execution"], event["correlation_id"]) == (execution["id"], execution["correlation_id"])
    assert await site.data("GET", f"{EVENTS}/{event['id']}") == event
    (row,) = await site.sql("SELECT causation_id, depth FROM attune.event WHERE id = $1", event["id"])
    assert (str(row["causation_id"] or ""), row["depth"]) == (execution["causation_id"] or "", execution["depth"] + 1)


async def test_an_execution_is_the_child_of_the_one_that_asks_for_it(site: Site) -> None:
    execution = await executed(site)

    made = await site.data("POST", EXECUTE, json={"action_ref": "core.noop"}, headers=header(execution))
    await site.data("GET", f"/api/v1/executions/{made['id']}?wait=30")
    again = await site.data("POST", f"/api/v1/executions/{made['id']}/rerun", json={}, headers=header(execution))

    for child in (made, again):
        assert (child["parent"], child["correlation_id"]) == (execution["id"], execution["correlation_id"])
        assert child["depth"] == execution["depth"] + 1
    top = await site.data("GET", "/api/v1/executions?top_level_only=true&page_size=1000")
    assert not {made["id"], again["id"]} & {one["id"] for one in top}


@pytest.mark.parametrize(
    "foreign",
    [
        {"chain": "0af76519-16cd-43dd-8448-eb211c80319c"},
        {"id": 2**62},
    ],
    ids=["another chain", "no execution"],
)
@pytest.mark.parametrize(
    ("path", "body"), [(EVENTS, {"trigger_ref": "shop.sold"}), (EXECUTE, {"action_ref": "core.noop"})]
)
async def test_a_parent_that_is_not_ours_is_as_if_it_were_not_named(
    site: Site, path: str, body: dict[str, Any], foreign: dict[str, Any]
) -> None:
    execution = await executed(site)

    made = await site.data("POST", path, json=body, headers=header(execution, **foreign))

    assert made.get("execution") is None
    assert made.get("parent") is None
    assert made["correlation_id"] not in {execution["correlation_id"], foreign.get("chain")}


async def test_a_header_that_is_malformed_or_sent_twice_is_no_error(site: Site) -> None:
    execution = await executed(site)
    named = [("traceparent", header(execution)["traceparent"])]

    for headers in ([("traceparent", "nonsense")], named * 2):
        event = await site.data("POST", EVENTS, json={"trigger_ref": "shop.sold"}, headers=headers)
        assert event["execution"] is None


async def test_a_script_that_causes_the_event_that_fires_it_is_stopped_with_an_explanation(site: Site) -> None:
    params = {"socket": str(site.place.socket)}
    rule = {"ref": "loops.loop", "pack_ref": "loops", "label": "Loop", "action_params": params}
    rule |= {"trigger_ref": "loops.again", "action_ref": "loops.again"}
    await site.data("POST", "/api/v1/rules", json=rule)
    first = await site.data("POST", EVENTS, json={"trigger_ref": "loops.again"})

    async def stopped() -> Any:
        found = await site.data("GET", "/api/v1/enforcements?rule_ref=loops.loop&status=failed")
        return found or None

    (enforcement,) = await until(stopped, within=50)

    ran = await site.data("GET", "/api/v1/executions?rule_ref=loops.loop")
    ids = sorted(execution["id"] for execution in ran)
    assert len(ids) == MOST
    assert {execution["correlation_id"] for execution in ran} == {first["correlation_id"]}
    assert f"through executions {', '.join(map(str, ids))}, and is stopped here" in enforcement["reason"]
    last = await site.data("GET", f"{EVENTS}/{enforcement['event']}")
    assert last["execution"] == ids[-1]
    why = await site.data("GET", f"{EVENTS}/{enforcement['event']}/explain")
    assert [one["enforcement"]["reason"] for one in why["rules"]] == [enforcement["reason"]]
    over = await site.data("GET", "/api/v1/rules/loops.loop/explain")
    assert [one["text"] for one in over["not_run"]] == [enforcement["reason"]]
