"""What one can be woken for, and how a transaction wakes those who wait for it once it is committed."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Tenant
from app.storage.database import announce

CHANNEL = "segmentation"
_NOTIFIED_AT_ONCE = 1_000
"""PostgreSQL refuses a row of more than 1,664 columns."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What one can be woken for. A wake-up says "look again", no more, so it may also come for nothing."""

    kind: str
    organisation: str = ""
    sandbox: str = ""
    id: str = ""

    @property
    def digest(self) -> str:
        """The topic as the payload of a notification, which must be short."""
        name = "\0".join((self.kind, self.organisation, self.sandbox, self.id))
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


QUEUE = Topic("queue")
"""There may be something for a worker to do."""
SCHEDULES = Topic("schedules")
"""Something may be due at another time than before."""
STREAMS = Topic("streams")
"""There may be a batch whose people are to be evaluated."""


def job_topic(tenant: Tenant, id: str) -> Topic:
    """One job has changed."""
    return Topic("job", tenant.organisation, tenant.sandbox, id)


def jobs_topic(tenant: Tenant) -> Topic:
    """Some job of the tenant has changed."""
    return Topic("jobs", tenant.organisation, tenant.sandbox)


def audience_topic(tenant: Tenant, id: str) -> Topic:
    """One audience has changed: its fields, its numbers or its members."""
    return Topic("audience", tenant.organisation, tenant.sandbox, id)


async def publish(session: AsyncSession, *topics: Topic) -> None:
    """Wakes the topics' subscribers, here and in other processes, once this transaction is committed."""
    announce(session, *topics)
    if session.get_bind().dialect.name == "postgresql":
        payloads = [func.pg_notify(CHANNEL, topic.digest) for topic in sorted(topics, key=lambda topic: topic.kind)]
        for start in range(0, len(payloads), _NOTIFIED_AT_ONCE):
            await session.execute(select(*payloads[start : start + _NOTIFIED_AT_ONCE]))
