"""The main job on real purchases, through GraphQL and the real server, with the figures that must come out."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Gateway

PURCHASES = Path(__file__).parent.parent / "data" / "cdnow_purchases.csv"

WATCH = """subscription ($id: ID!) { segmentJobUpdated(id: $id) {
  status progress { phase fraction profilesRead totalProfiles sequence } } }"""

MEMBERS = """query ($id: ID!, $after: String) { audience(id: $id) { members(first: 500, after: $after) {
  totalCount pageInfo { hasNextPage endCursor }
  nodes { status lastQualificationTime profile { profileId } } } } }"""


def watched(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The states that a stream sent, in which nothing ever goes back and only the last is final."""
    states = [item["segmentJobUpdated"] for item in items]
    sequences = [state["progress"]["sequence"] for state in states]
    fractions = [state["progress"]["fraction"] for state in states]
    assert sequences == sorted(set(sequences))
    assert fractions == sorted(fractions)
    assert [state["status"] for state in states if state["status"] in {"SUCCEEDED", "FAILED", "CANCELLED"}] == [
        states[-1]["status"]
    ]
    return states


def by_status(segment: dict[str, Any]) -> tuple[int, int, int]:
    counts = {item["status"]: item["count"] for item in segment["byStatus"]}
    return counts["REALIZED"], counts["EXISTING"], counts["EXITED"]


@pytest.mark.parametrize("compressed", [False, True], ids=["csv", "csv.gz"])
async def test_the_main_job_on_real_purchases(running_server: Any, compressed: bool) -> None:
    gateway = Gateway(running_server.url, sandbox=f"cdnow-{compressed}".lower())
    dataset = gateway.create_dataset("purchases", "EVENT", "customer_id", "date")
    content = PURCHASES.read_bytes()
    uploaded = gateway.upload(dataset, "p.csv", gzip.compress(content) if compressed else content, "CSV")
    assert uploaded["errors"] == []
    assert (uploaded["batch"]["status"], uploaded["batch"]["rowCount"], uploaded["batch"]["rejectedRows"]) == (
        "ACTIVE",
        69_659,
        0,
    )

    a = gateway.define("Over 500", "xEvent.sum(dollars) > 500")
    b = gateway.define(
        "Three in the first quarter",
        "xEvent[timestamp occurs between date(1997, 1, 1) and date(1997, 3, 31)].count() >= 3",
    )
    both = gateway.define("A and not B", f'inSegment("{a}") and not(inSegment("{b}"))')
    chain = gateway.define(
        "Two large ones",
        "CHAIN(xEvent, timestamp, [C0: WHAT(dollars > 100), C1: WHAT(dollars > 100) WHEN(<= 30 days after C0)])",
    )
    february = gateway.define("Since February", "xEvent.min(timestamp).getMonth() = 2")

    job = gateway.start_job()
    states = watched([item async for item in gateway.by_websocket(WATCH, id=job)])
    assert states[-1]["status"] == "SUCCEEDED"
    assert states[-1]["progress"]["fraction"] == 1
    assert states[-1]["progress"]["profilesRead"] == states[-1]["progress"]["totalProfiles"] == 23_570
    again = watched([item async for item in gateway.by_sse(WATCH, id=job)])
    assert [state["status"] for state in again] == ["SUCCEEDED"]

    done = gateway.job(job)
    counts = {segment["segmentId"]: segment["profileCount"] for segment in done["segments"]["nodes"]}
    assert counts == {a: 734, b: 1_590, both: 392, chain: 226, february: 8_476}
    assert done["errors"] == []
    assert done["metrics"]["totalProfiles"] == 23_570
    first = next(segment for segment in done["segments"]["nodes"] if segment["segmentId"] == a)
    assert first["byNamespace"] == [{"namespace": "customer", "count": 734}]
    assert by_status(first) == (734, 0, 0)

    members = gateway.query(MEMBERS, id=a, after=None)["audience"]["members"]
    assert members["totalCount"] == 734
    people = members["nodes"]
    while members["pageInfo"]["hasNextPage"]:
        members = gateway.query(MEMBERS, id=a, after=members["pageInfo"]["endCursor"])["audience"]["members"]
        people += members["nodes"]
    ids = {member["profile"]["profileId"] for member in people}
    assert len(people) == len(ids) == 734
    assert all(len(id_) == len("customer:00001") for id_ in ids), "leading zeros stay"
    qualified = {member["lastQualificationTime"] for member in people}
    assert len(qualified) == 1

    rerun = gateway.start_job(a)
    states = watched([item async for item in gateway.by_sse(WATCH, id=rerun)])
    assert states[-1]["status"] == "SUCCEEDED"
    assert by_status(gateway.job(rerun)["segments"]["nodes"][0]) == (0, 734, 0)

    newcomer = next(f"{number:05d}" for number in range(1, 23_571) if f"customer:{number:05d}" not in ids)
    more = gateway.upload(
        dataset, "more.csv", f"customer_id,date,quantity,dollars\n{newcomer},1998-07-01,3,500.01\n".encode(), "CSV"
    )
    assert more["batch"]["rowCount"] == 1
    third = gateway.start_job(a)
    assert watched([item async for item in gateway.by_websocket(WATCH, id=third)])[-1]["status"] == "SUCCEEDED"
    assert by_status(gateway.job(third)["segments"]["nodes"][0]) == (1, 734, 0)

    person = gateway.query(
        """query ($id: ID!) { profile(id: $id) { profileId identities { namespace id primary }
          events(first: 1) { totalCount nodes { timestamp attributes(paths: ["dollars"]) } }
          memberships(first: 10) { nodes { status lastQualificationTime audience { audienceId } } } } }""",
        id=f"customer:{newcomer}",
    )["profile"]
    assert person["identities"] == [{"namespace": "customer", "id": newcomer, "primary": True}]
    assert person["events"]["nodes"] == [{"timestamp": "1998-07-01T00:00:00Z", "attributes": {"dollars": 500.01}}]
    entered = next(item for item in person["memberships"]["nodes"] if item["audience"]["audienceId"] == a)
    assert entered["status"] == "REALIZED"
    assert entered["lastQualificationTime"] not in qualified
