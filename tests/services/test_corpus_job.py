"""Every expression of the corpus as a definition, evaluated by one real job over people that were uploaded."""

import json
from pathlib import Path

import pytest

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.services.audiences import computed as definitions
from app.services.audiences import writes as audience_writes
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets, uploads
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.services.people.profiles import ProfileReader
from app.storage.database import Database
from app.storage.tables.audiences import AudienceType
from app.storage.tables.datasets import DatasetKind
from tests.engine.test_corpus import CASES, DATA
from tests.services.conftest import SCOPE
from tests.services.test_segment_jobs import job_of, run_next
from tests.support.engines import Elsewhere

PEOPLE = [json.loads(line)["_id"] for line in (DATA / "profiles.ndjson").read_text("utf-8").splitlines()]

OTHER_IDENTITIES = {
    'identityMap.get("Phone").count() = 0 and identityMap.get("Phone").isNotNull()',
    'identityMap.keys().includes("Phone")',
    "identityMap.keys().count() = 3",
    'identityMap.keys() = ["Email", "ECID"]',
    "identityMap.values().count() = 2",
    "identityMap.isNull()",
}
"""What identity maps answer otherwise: an uploaded person also has the primary identity of the dataset, and has no
namespace without an identity."""


async def _stored_segments(database: Database, lake: Lake, clock: FixedClock, folder: Path) -> None:
    """The stored memberships of the fixture as external audiences, which keep those who are in."""
    rows = [json.loads(line) for line in (DATA / "membership.ndjson").read_text("utf-8").splitlines()]
    for segment in sorted({row["segmentId"] for row in rows}):
        there = [row["profileId"] for row in rows if row["segmentId"] == segment and row["status"] != "exited"]
        dataset = await datasets.create(
            database, clock, SCOPE, datasets.NewDataset(segment, DatasetKind.AUDIENCE, "id", "crm")
        )
        values: audience_writes.AudienceFields = {
            "name": segment,
            "audience_id": segment,
            "dataset_id": dataset.id,
            "exclude_opt_out": False,
        }
        await audience_writes.create(database, lake, clock, SCOPE, AudienceType.EXTERNAL_SEGMENT, values)
        if there:  # A file without rows would be refused.
            file = folder / f"{segment}.csv"
            file.write_text("id\n" + "".join(f"{id}\n" for id in there))
            await uploads.upload_batch(database, lake, clock, SCOPE, dataset.id, InputFile(file, "CSV"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_job_over_the_corpus_finds_its_people(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    """By what JSON tells of the job, as on another machine."""
    await corpus_job(database, lake, clock, tmp_path, Elsewhere(2))


async def corpus_job(database: Database, lake: Lake, clock: FixedClock, folder: Path, engine: Engine) -> None:
    for name, kind, column, time in (
        ("profiles", "PROFILE", "_id", None),
        ("events", "EVENT", "profileId", "timestamp"),
    ):
        file = DATA / f"{name}.ndjson"
        await ingest_file(
            database,
            lake,
            clock,
            SCOPE,
            NewDataset(name, DatasetKind(kind), column, "crm", time),
            InputFile(file, "NDJSON"),
        )
    await _stored_segments(database, lake, clock, folder)
    expected = {}
    for at, (expression, ids) in enumerate(CASES):
        new = NewDefinition(name=f"{at:03d}", expression=expression, exclude_opt_out=False)
        expected[(await definitions.create(database, lake, clock, SCOPE, new)).id] = (expression, ids)
    job = await segment_jobs.create(database, clock, SCOPE, all_definitions=True)
    await run_next(database, lake, clock, engine)
    ended = await job_of(database, job.id)
    assert (ended.status, ended.errors) == ("SUCCEEDED", [])
    found: dict[str, list[str]] = {id_: [] for id_ in expected}
    reader = ProfileReader(database, lake, clock, SCOPE)
    for person in PEOPLE:
        who = await reader.find(f"crm:{person}")
        assert who is not None
        page = (await reader.memberships([who], PageRequest(1_000)))[who]
        for member in page.items:
            found.get(member.definition_id, []).append(person)
    people = {id_: " ".join(sorted(those)) for id_, those in found.items()}
    wrong = {expression: (people[id_], ids) for id_, (expression, ids) in expected.items() if people[id_] != ids}
    # The rest is equal, all of it.
    assert wrong.keys() == OTHER_IDENTITIES
