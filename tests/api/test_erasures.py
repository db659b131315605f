"""Erasures over the API: asked for, followed and audited; by those who may, within their sandbox."""

from datetime import timedelta

from app.services.jobs.erasure.run import run_erasure_job
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.api.conftest import Api
from tests.api.test_audit import log
from tests.support.databases import count_statements

ERASE = """mutation ($input: EraseProfileInput!) { eraseProfile(input: $input) {
  job { id jobId status verified rows { place count } source attempts } errors { code message path } } }"""
JOB = """query ($id: ID!) { erasureJob(id: $id) {
  __typename jobId status verified rows { place count } progress { phase fraction } errors { message } } }"""
LEASE = timedelta(minutes=5)
PERSON = {"namespace": "crm", "id": "00001"}


async def run(api: Api) -> None:
    services = api.services
    claim = await claim_next(services.database, services.clock, owner="test", lease=LEASE, kind=JobKind.ERASURE)
    assert claim is not None
    await run_erasure_job(Attempt(services.database, services.clock, claim), services.lake, 1)


async def test_a_person_is_erased_and_the_job_tells_where_from(api: Api) -> None:
    await api.loaded()
    payload = (await api.query(ERASE, input={"identity": PERSON, "reason": "asked"}))["eraseProfile"]
    assert payload["errors"] == []
    job = payload["job"]
    assert (job["status"], job["verified"], job["rows"], job["source"]) == ("QUEUED", False, [], "API")
    await run(api)
    with count_statements(api.services.database) as statements:
        found = (await api.query(JOB, id=job["id"]))["erasureJob"]
    assert len(statements) == 1
    rows = {row["place"]: row["count"] for row in found["rows"] if row["count"]}
    assert rows == {
        "Identities": 1,
        "Dataset purchases": 2,
        "Older versions of datasets": 2,
        "Older versions of identities": 1,
        "Identity graph": 2,
    }
    assert (found["verified"], found["status"], found["progress"]) == (
        True,
        "SUCCEEDED",
        {"phase": "DONE", "fraction": 1.0},
    )
    assert (await api.query('{ profile(id: "crm:00001") { profileId } }'))["profile"] is None
    listed = await api.query("{ jobs { nodes { __typename jobId ... on ErasureJob { verified } } } }")
    assert listed["jobs"]["nodes"] == [{"__typename": "ErasureJob", "jobId": job["jobId"], "verified": True}]
    node = await api.query("query ($id: ID!) { node(id: $id) { ... on ErasureJob { jobId } } }", id=job["id"])
    assert node["node"] == {"jobId": job["jobId"]}
    assert (await api.within("test").query(JOB, id=job["jobId"]))["erasureJob"] is None


async def test_the_audit_log_has_a_hash_and_no_id(api: Api) -> None:
    await api.loaded()
    job = (await api.query(ERASE, input={"identity": PERSON}))["eraseProfile"]["job"]["jobId"]
    await run(api)
    entries = [entry for entry in await log(api) if entry[0] == "eraseProfile"]
    assert [(entry[1] == job, entry[2]) for entry in entries if entry[2] == "OK"] == [(True, "OK")]
    (digest,) = [str(resource) for _, resource, outcome in entries if outcome == "ERASED"]
    assert len(bytes.fromhex(digest)) == 32
    assert "00001" not in str(await log(api)).replace(digest, "").replace(job, "")


async def test_what_is_wrong_is_said_where_it_is(api: Api) -> None:
    asked = {"identity": {"namespace": "crm", "id": ""}}
    payload = (await api.query(ERASE, input=asked))["eraseProfile"]
    assert payload["job"] is None
    message = "'' names nobody: send the id as it is written in the data"
    assert payload["errors"] == [{"code": "INVALID_INPUT", "message": message, "path": ["input", "identity", "id"]}]
