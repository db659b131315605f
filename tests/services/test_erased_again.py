"""Backups and erasures: who was erased after a backup is erased again after it was restored."""

from dataclasses import replace
from pathlib import Path

import pytest

from app import wiring
from app.engine.store.erased import read_erased
from app.engine.store.lake import Lake
from app.errors import Refusal
from app.services.jobs.erasure.run import run_erasure_job
from app.services.lists.paging import PageRequest
from app.services.maintenance.backup import back_up
from app.settings import Settings
from app.storage.database import Database
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_erasure import (
    ANN,
    DEVICE,
    claimed,
    clock,
    erase,
    erasure,
    later,
    naming,
    naming_tables,
    small,
)

__all__ = ["clock"]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def members(gateway: Gateway, audience: str) -> list[str]:
    reader = gateway.reader()
    page = (await reader.members_many([audience], PageRequest(50)))[audience]
    people = await reader.people([member.key for member in page.items])
    return sorted(person.profile_id for person in people.values())


async def restored(gateway: Gateway, erased: Path | None) -> tuple[Gateway, wiring.Restored]:
    """The backup of a gateway in a database and a lake of its own."""
    folder = gateway.folder / f"restored-{erased is not None}"
    settings = Settings(data_dir=folder)
    result = await wiring.restored(settings, gateway.folder / "backup", erased, gateway.clock)
    other = Gateway(Database(settings.database), Lake(folder / "lake"), gateway.clock, gateway.folder)
    return other, result


async def test_a_backup_gives_back_nobody_who_was_erased_after_it(gateway: Gateway) -> None:
    """Linked identities are one person and one job; who was erased before the backup came again by a setting."""
    await gateway.people([{"id": "again-1", "tier": "gold"}])
    assert (await erase(gateway, "again-1")).verified
    gateway.lake = replace(gateway.lake, refuse_erased=False)
    await gateway.people([{"id": "again-1", "tier": "gold"}])
    later(gateway)
    audience = await small(gateway)
    await back_up(gateway.database, gateway.lake, gateway.clock, gateway.folder / "backup")
    assert (await erase(gateway, DEVICE)).verified
    assert (await erase(gateway, "nobody-known")).verified

    plain, result = await restored(gateway, None)
    assert (result.erasures, result.findings) == (0, [])
    assert len(naming(plain.lake.tenant(SCOPE.tenant).folder, ANN, DEVICE)) > 5
    await plain.database.dispose()

    other, result = await restored(gateway, gateway.lake.root)
    assert (result.erasures, result.findings) == (1, [])
    run = await claimed(other, JobKind.ERASURE)
    await run_erasure_job(run, other.lake, 1)
    job = await erasure(other, run.job.id)
    assert (run.ended_as, job.verified, job.created_by) == ("SUCCEEDED", True, "restore")
    assert naming(other.lake.tenant(SCOPE.tenant).folder, ANN, DEVICE) == []
    assert await naming_tables(other, ANN, DEVICE) == []
    assert await members(other, audience) == ["crm:again-1", "crm:other-1"]
    digests = read_erased(gateway.lake.tenant(SCOPE.tenant))
    assert digests == read_erased(other.lake.tenant(SCOPE.tenant))
    assert digests is not None
    assert digests.digest(("crm", "nobody-known")) in digests.digests
    await other.database.dispose()


async def test_notes_of_erasures_that_do_not_fit_a_backup_are_refused_before_anything_is_restored(
    gateway: Gateway,
) -> None:
    await small(gateway)
    await erase(gateway)
    await back_up(gateway.database, gateway.lake, gateway.clock, gateway.folder / "backup")
    target, later_lake = Settings(data_dir=gateway.folder / "target"), gateway.folder / "later"
    later_lake.mkdir()
    with pytest.raises(Refusal, match=r"has no erased\.json in it: name the folder `lake` of the data"):
        await wiring.restored(target, gateway.folder / "backup", later_lake)
    note = later_lake / gateway.lake.tenant(SCOPE.tenant).erased.relative_to(gateway.lake.root)
    note.parent.mkdir(parents=True)
    note.write_text('{"salt": "another", "digests": []}')
    with pytest.raises(Refusal, match="is not of the sandbox in the backup: its salt differs"):
        await wiring.restored(target, gateway.folder / "backup", later_lake)
    assert not target.folder.exists()
