"""The loaders of one operation, each bound to a function of `services`: one read for all rows of a level."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Protocol, TypeVar

from app.api.context.batching import Loader, PageLoader
from app.clock import Clock
from app.engine.ingest.rows import RejectedRow
from app.engine.people.profiles import Event, MergeRule, Person
from app.engine.store.lake import Lake
from app.errors import Refusal
from app.pql.eligibility import StreamingEligibility
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import definition_reads
from app.services.audiences import reads as audiences
from app.services.datasets import datasets
from app.services.evaluation.expressions import vocabulary
from app.services.evaluation.heads import Heads
from app.services.insight import changes as membership_changes
from app.services.insight import history, moments
from app.services.jobs import shared as jobs
from app.services.jobs.erasure import requests as erasure_jobs
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.preview import requests as previews
from app.services.jobs.schedules import reads as schedule_reads
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Member
from app.services.people.profiles import ProfileReader
from app.services.search import folders
from app.storage.columns import StoredValues
from app.storage.database import Database, DatabaseSession
from app.storage.job_log import JobState
from app.storage.queue.workers import live_workers
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, DatasetRow
from app.storage.tables.definitions import DefinitionVersionRow
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.folders import FolderRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.schedules import ScheduleRow, ScheduleRunRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow

Found = TypeVar("Found")
Key = TypeVar("Key", bound=Hashable)


class Read(Protocol):
    """Runs a query with the session of an operation."""

    def __call__(self, query: Callable[[DatabaseSession], Awaitable[Found]], /) -> Awaitable[Found]: ...


class Loaders:
    """The loaders, named by question: `jobs_of_definition.load((definition_id, page_request, filter))`."""

    def __init__(
        self, read: Read, scope: Scope, database: Database, lake: Lake, clock: Clock, profiles: ProfileReader
    ) -> None:
        self._read = read
        self._scope = scope
        self._database = database
        self._lake = lake
        self._clock = clock
        self._profiles = profiles
        self._by_rule: dict[MergeRule, Loaders] = {}

    @property
    def profiles(self) -> ProfileReader:
        """The reader that these loaders use for profiles."""
        return self._profiles

    def by_rule(self, rule: MergeRule) -> "Loaders":
        """Loaders whose profiles are merged by this rule."""
        if rule not in self._by_rule:
            people = self._profiles.with_rule(rule)
            self._by_rule[rule] = Loaders(self._read, self._scope, self._database, self._lake, self._clock, people)
        return self._by_rule[rule]

    @cached_property
    def dataset(self) -> Loader[str, DatasetRow | None]:
        return self._rows(datasets.get_many)

    @cached_property
    def batch(self) -> Loader[str, BatchRow | None]:
        return self._rows(datasets.batches_get_many)

    @cached_property
    def rejected_of_batch(self) -> Loader[tuple[str, str], tuple[RejectedRow, ...]]:
        """By the ids of its dataset and its own."""

        async def load(keys: list[tuple[str, str]]) -> list[tuple[RejectedRow, ...]]:
            rows = await datasets.rejected_many(self._lake, self._scope, keys)
            return [rows[key] for key in keys]

        return Loader(load)

    @cached_property
    def schema_of_dataset(self) -> Loader[str, StoredValues]:
        async def load(ids: list[str]) -> list[StoredValues]:
            schemas = await datasets.schemas_many(self._lake, self._scope, ids)
            return [schemas[id_] for id_ in ids]

        return Loader(load)

    @cached_property
    def fields_of_dataset(self) -> Loader[str, list[tuple[str, str]]]:
        async def load(ids: list[str]) -> list[list[tuple[str, str]]]:
            fields = await datasets.fields_many(self._lake, self._scope, ids)
            return [fields.get(id_, []) for id_ in ids]

        return Loader(load)

    @cached_property
    def merge_policy(self) -> Loader[str, MergePolicyRow | None]:
        return self._rows(merge_policies.get_many)

    @cached_property
    def folder(self) -> Loader[str, FolderRow | None]:
        return self._rows(folders.get_many)

    @cached_property
    def audience(self) -> Loader[str, AudienceRow | None]:
        return self._rows(audiences.get_many)

    @cached_property
    def audience_by_name(self) -> Loader[tuple[str | None, str], AudienceRow | None]:
        """By (namespace, `audienceId`)."""
        return self._rows(audiences.get_named)

    @cached_property
    def points_of_audience(self) -> PageLoader[Slice[MembershipChangeRow]]:
        return self._pages(history.points_by_audience)

    @cached_property
    def point_count_of_audience(self) -> PageLoader[int]:
        return self._pages(history.point_counts)

    @cached_property
    def changes_of_audience(self) -> PageLoader[Slice[membership_changes.Change]]:
        async def read(
            audiences: Sequence[str], request: PageRequest, period: history.Period
        ) -> Mapping[str, Slice[membership_changes.Change] | Refusal]:
            return await membership_changes.pages_by_audience(
                self._database, self._scope, self._profiles, audiences, request, period
            )

        return PageLoader(read)

    @cached_property
    def heads_of_audience(self) -> PageLoader[Heads]:
        """By (audience, moment, name of the argument that contained the moment)."""

        async def read(ids: Sequence[str], at: datetime, argument: str) -> Mapping[str, Heads | Refusal]:
            now = self._clock()
            return await self._read(lambda session: moments.heads_at(session, self._scope, ids, at, now, argument))

        return PageLoader(read)

    @cached_property
    def change_count_of_audience(self) -> PageLoader[int]:
        return self._pages(membership_changes.counts)

    @cached_property
    def versions_of_definition(self) -> PageLoader[Slice[DefinitionVersionRow]]:
        return self._pages(history.versions_by_audience)

    @cached_property
    def version_count_of_definition(self) -> PageLoader[int]:
        return self._pages(history.version_counts)

    @cached_property
    def dependencies_of_audience(self) -> PageLoader[Slice[AudienceRow]]:
        return self._pages(audiences.dependencies_by_audience)

    @cached_property
    def dependency_count_of_audience(self) -> PageLoader[int]:
        return self._pages(audiences.dependency_counts)

    @cached_property
    def dependents_of_audience(self) -> PageLoader[Slice[AudienceRow]]:
        return self._pages(audiences.dependents_by_audience)

    @cached_property
    def definition(self) -> Loader[str, definition_reads.DefinitionView | None]:
        return self._rows(definition_reads.get_many)

    @cached_property
    def segment_job(self) -> Loader[str, SegmentJobRow | None]:
        return self._rows(segment_jobs.get_many)

    @cached_property
    def erasure_job(self) -> Loader[str, ErasureJobRow | None]:
        return self._rows(erasure_jobs.get_many)

    @cached_property
    def export_job(self) -> Loader[str, ExportJobRow | None]:
        return self._rows(export_jobs.get_many)

    @cached_property
    def batches_of_export(self) -> PageLoader[Slice[BatchRow]]:
        return self._pages(export_jobs.batches_by_job)

    @cached_property
    def batch_count_of_export(self) -> PageLoader[int]:
        return self._pages(export_jobs.batch_counts)

    @cached_property
    def preview(self) -> Loader[str, PreviewRow | None]:
        return self._rows(previews.get_many)

    @cached_property
    def buckets_of_preview(self) -> Loader[str, Sequence[JobBucketRow]]:
        """The buckets read so far, in sample order."""

        async def load(ids: list[str]) -> list[Sequence[JobBucketRow]]:
            rows = [row for row in await self.preview.load_many(ids) if row is not None]
            buckets = await self._read(lambda session: previews.read_buckets(session, self._scope, rows))
            return [buckets.get(id_, ()) for id_ in ids]

        return Loader(load)

    @cached_property
    def batches_of_dataset(self) -> PageLoader[Slice[BatchRow]]:
        return self._pages(datasets.batches_by_dataset)

    @cached_property
    def batch_count_of_dataset(self) -> PageLoader[int]:
        return self._pages(datasets.batch_counts)

    @cached_property
    def dependencies_of_definition(self) -> PageLoader[Slice[definition_reads.DefinitionView]]:
        return self._pages(definition_reads.dependencies_by_definition)

    @cached_property
    def dependency_count_of_definition(self) -> PageLoader[int]:
        return self._pages(definition_reads.dependency_counts)

    @cached_property
    def dependents_of_definition(self) -> PageLoader[Slice[definition_reads.DefinitionView]]:
        return self._pages(definition_reads.dependents_by_definition)

    @cached_property
    def dependent_count_of_definition(self) -> PageLoader[int]:
        return self._pages(definition_reads.dependent_counts)

    @cached_property
    def jobs_of_definition(self) -> PageLoader[Slice[SegmentJobRow]]:
        return self._pages(segment_jobs.page_by_definition)

    @cached_property
    def job_count_of_definition(self) -> PageLoader[int]:
        return self._pages(segment_jobs.counts_by_definition)

    @cached_property
    def segments_of_job(self) -> PageLoader[Slice[SegmentJobDefinitionRow]]:
        return self._pages(segment_jobs.segments_by_job)

    @cached_property
    def segment_count_of_job(self) -> PageLoader[int]:
        return self._pages(segment_jobs.segment_counts)

    @cached_property
    def schedule(self) -> Loader[str, ScheduleRow | None]:
        return self._rows(schedule_reads.get_many)

    @cached_property
    def schedules_of_audience(self) -> PageLoader[Slice[ScheduleRow]]:
        return self._pages(schedule_reads.page_by_audience)

    @cached_property
    def schedule_count_of_audience(self) -> PageLoader[int]:
        return self._pages(schedule_reads.counts_by_audience)

    @cached_property
    def audiences_of_schedule(self) -> PageLoader[Slice[AudienceRow]]:
        return self._pages(schedule_reads.audiences_by_schedule)

    @cached_property
    def audience_count_of_schedule(self) -> PageLoader[int]:
        return self._pages(schedule_reads.audience_counts)

    @cached_property
    def workers(self) -> Loader[str, int]:
        """The number of running workers; the only key is the empty text."""

        async def load(keys: list[str]) -> list[int]:
            return [await self._read(lambda session: live_workers(session, self._clock()))] * len(keys)

        return Loader(load)

    @cached_property
    def jobs_of_schedule(self) -> PageLoader[Slice[JobState]]:
        return self._pages(jobs.page_by_schedule)

    @cached_property
    def job_count_of_schedule(self) -> PageLoader[int]:
        return self._pages(jobs.counts_by_schedule)

    @cached_property
    def last_run_of_schedule(self) -> Loader[str, ScheduleRunRow | None]:
        return self._rows(schedule_reads.last_runs)

    @cached_property
    def streaming_eligibility(self) -> Loader[str, StreamingEligibility]:
        """By expression text."""

        async def load(expressions: list[str]) -> list[StreamingEligibility]:
            words = await vocabulary(self._database, self._lake, self._scope)
            return [words.check(expression).streaming for expression in expressions]

        return Loader(load)

    @cached_property
    def members_of_definition(self) -> PageLoader[Slice[Member]]:
        return PageLoader(self._profiles.members_many)

    @cached_property
    def member_count_of_definition(self) -> PageLoader[int]:
        return PageLoader(self._profiles.member_counts)

    @cached_property
    def payload_of_membership(self) -> PageLoader[StoredValues | None]:
        """By (audience, person)."""
        return PageLoader(self._profiles.payloads)

    @cached_property
    def person(self) -> PageLoader[Person]:
        return PageLoader(self._profiles.people)

    @cached_property
    def attributes_of_profile(self) -> PageLoader[StoredValues]:
        return PageLoader(self._profiles.attributes)

    @cached_property
    def events_of_profile(self) -> PageLoader[Slice[Event]]:
        return PageLoader(self._profiles.events)

    @cached_property
    def event_count_of_profile(self) -> PageLoader[int]:
        return PageLoader(self._profiles.event_counts)

    @cached_property
    def memberships_of_profile(self) -> PageLoader[Slice[Member]]:
        return PageLoader(self._profiles.memberships)

    @cached_property
    def membership_count_of_profile(self) -> PageLoader[int]:
        return PageLoader(self._profiles.membership_counts)

    def _rows(self, get_many: Callable[..., Awaitable[dict[Key, Found]]]) -> Loader[Key, Found | None]:
        """By id or another unique key; None for objects that the tenant does not have."""

        async def load(ids: list[Key]) -> list[Found | None]:
            rows = await self._read(lambda session: get_many(session, self._scope, ids))
            return [rows.get(id_) for id_ in ids]

        return Loader(load)

    def _pages(self, fetch: Callable[..., Awaitable[dict[str, Found]]]) -> PageLoader[Found]:
        """By parent and arguments: one read for all parents requested with the same arguments."""

        async def read(parents: Sequence[str], *arguments: Hashable) -> dict[str, Found]:
            return await self._read(lambda session: fetch(session, self._scope, parents, *arguments))

        return PageLoader(read)
