"""Topics that subscribers wait for, and how a transaction notifies them after its commit."""

import hashlib
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Tenant
from app.storage.sessions.writing import WriteSession


@dataclass(frozen=True, slots=True)
class Topic:
    """What a subscriber can wait for. A wake-up only means "look again", so spurious ones are harmless."""

    kind: str
    organisation: str = ""
    sandbox: str = ""
    id: str = ""

    @property
    def digest(self) -> str:
        """A short digest of the topic, used as the payload of a notification."""
        name = "\0".join((self.kind, self.organisation, self.sandbox, self.id))
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


QUEUE = Topic("queue")
"""There may be work for a worker."""
SCHEDULES = Topic("schedules")
"""A schedule's next due time may have changed."""
STREAMS = Topic("streams")
"""There may be a batch to evaluate."""


def job_topic(tenant: Tenant, id: str) -> Topic:
    """Topic of changes to one job."""
    return Topic("job", tenant.organisation, tenant.sandbox, id)


def jobs_topic(tenant: Tenant) -> Topic:
    """Topic of changes to any job of the tenant."""
    return Topic("jobs", tenant.organisation, tenant.sandbox)


def audience_topic(tenant: Tenant, id: str) -> Topic:
    """Topic of changes to one audience: its fields, counts or members."""
    return Topic("audience", tenant.organisation, tenant.sandbox, id)


async def publish(session: AsyncSession, *topics: Topic) -> None:
    """Notifies the topics' subscribers, in this and other processes, after this transaction commits."""
    if not isinstance(session, WriteSession):
        raise TypeError(f"{type(session).__name__} cannot publish: use a session of Database.write")
    session.topics.update(topics)
    if session.dialect.name == "postgresql":
        session.notifications.update((topic.digest, None) for topic in sorted(topics, key=lambda topic: topic.kind))
