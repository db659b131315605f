"""Changes of members from batch and stream, followed at one server until it is killed, then at another one."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.insight.changes import ORDER
from app.services.lists.paging import encode_cursor
from tests.end_to_end.test_killed import worker_process
from tests.end_to_end.test_servers import servers
from tests.support.client import Gateway

__all__ = ["servers"]

DEFINE = """mutation ($input: CreateSegmentDefinitionInput!) {
  createSegmentDefinition(input: $input) { definition { segmentId } errors { message } } }"""
WATCH = """subscription ($ids: [ID!]!, $after: String) { membershipChanged(audienceIds: $ids, after: $after) {
  status cursor audience { audienceId } profile { profileId } } }"""
LOG = """query ($id: ID!) { audience(id: $id) { changes(first: 500) { totalCount nodes {
  status cursor audience { audienceId } profile { profileId } } } } }"""
PATIENCE = 150
"""Seconds, for a busy machine."""
START = encode_cursor(ORDER, (0, 0, 0, 0))

Change = dict[str, Any]


def tiers(**people: str) -> bytes:
    return ("id,tier\n" + "".join(f"{id},{tier}\n" for id, tier in people.items())).encode()


async def follow(
    gateway: Gateway, changes: list[Change], ids: list[str], enough: int, reached: asyncio.Event | None = None
) -> None:
    """Appends what comes after the last of the changes until there are enough; with `reached` that is set instead."""
    stream = gateway.by_sse(WATCH, ids=ids, after=changes[-1]["cursor"] if changes else START)
    async for item in stream:
        changes.append(item["membershipChanged"])
        if len(changes) == enough:
            if reached is None:
                break
            reached.set()
    await stream.aclose()  # type: ignore[attr-defined]


@pytest.mark.timeout(600)
async def test_no_change_is_lost_or_doubled(servers: list[Gateway], database_url: str, tmp_path: Path) -> None:
    first, second = servers
    people = first.create_dataset("people", "PROFILE", "id")
    first.upload(people, "p.csv", tiers(nobody="tin"), "CSV")
    ids = []
    for method in ("STREAMING", "BATCH"):
        new = {"name": method, "expression": 'tier = "gold"', "evaluationMethods": [method]}
        ids.append(first.query(DEFINE, input=new)["createSegmentDefinition"]["definition"]["segmentId"])
    changes: list[Change] = []
    reached = asyncio.Event()
    with worker_process(database_url, tmp_path):
        following = asyncio.create_task(follow(first, changes, ids, 250, reached))
        gold = {f"p{number:03}": "gold" for number in range(200)}
        await asyncio.to_thread(first.upload, people, "p.csv", tiers(**gold), "CSV")
        await asyncio.to_thread(second.start_job, ids[1])
        await asyncio.wait_for(reached.wait(), PATIENCE)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        assert isinstance((await asyncio.gather(following, return_exceptions=True))[0], httpx.TransportError)
        # While nobody follows, some leave the one audience, and later the other one.
        await asyncio.to_thread(second.upload, people, "p.csv", tiers(**dict.fromkeys(list(gold)[:50], "tin")), "CSV")
        await asyncio.wait_for(follow(second, changes, ids, 450), PATIENCE)
        await asyncio.to_thread(second.start_job, ids[1])
        await asyncio.wait_for(follow(second, changes, ids, 500), PATIENCE)
    assert len({change["cursor"] for change in changes}) == len(changes) == 500
    for id, total in zip(ids, (250, 250), strict=True):
        log = second.query(LOG, id=id)["audience"]["changes"]
        assert log["totalCount"] == total
        assert [change for change in changes if change["audience"]["audienceId"] == id] == log["nodes"]
