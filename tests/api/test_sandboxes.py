"""Sandboxes over the API: those that hold something, and the time zone of the request's own."""

from tests.api.conftest import Api

VIEWER = "{ viewer { timeZone sandboxes { name timeZone totalProfiles } } }"
UPDATE = """mutation ($zone: String!) { updateSandbox(input: {timeZone: $zone}) {
  sandbox { name timeZone } errors { code path message } } }"""


async def test_a_sandbox_gets_a_time_zone(api: Api) -> None:
    before = (await api.query(VIEWER))["viewer"]
    assert before == {"timeZone": "UTC", "sandboxes": []}
    changed = (await api.query(UPDATE, zone="Australia/Lord_Howe"))["updateSandbox"]
    assert changed["errors"] == []
    name = changed["sandbox"]["name"]
    assert changed["sandbox"] == {"name": name, "timeZone": "Australia/Lord_Howe"}
    after = (await api.query(VIEWER))["viewer"]
    zone = {"name": name, "timeZone": "Australia/Lord_Howe", "totalProfiles": 0}
    assert after == {"timeZone": "Australia/Lord_Howe", "sandboxes": [zone]}


async def test_an_unknown_zone_is_refused(api: Api) -> None:
    (error,) = (await api.query(UPDATE, zone="Mars/Olympus"))["updateSandbox"]["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "timeZone"])
    assert "there is no time zone 'Mars/Olympus'" in error["message"]
    assert (await api.query(VIEWER))["viewer"]["timeZone"] == "UTC"
