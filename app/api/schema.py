"""The list of resources."""

from functools import cache

import strawberry

from app.api.context import Limits
from app.api.errors import ERROR_TYPES
from app.api.guards.limits import GatewaySchema
from app.api.resources.api_keys import ApiKeyMutations, ApiKeyQueries
from app.api.resources.audience_queries import AudienceQueries, AudienceSubscriptions
from app.api.resources.audience_writes import AudienceMutations
from app.api.resources.audit import AuditQueries
from app.api.resources.compare import CompareQueries
from app.api.resources.datasets import DatasetMutations, DatasetQueries
from app.api.resources.definition_writes import DefinitionMutations
from app.api.resources.definitions import DefinitionQueries
from app.api.resources.erasures import ErasureMutations, ErasureQueries
from app.api.resources.explain import ExplainQueries
from app.api.resources.export_jobs import ExportJobMutations, ExportJobQueries, ExportJobSubscriptions
from app.api.resources.folders import FolderMutations, FolderQueries
from app.api.resources.history import HistorySubscriptions
from app.api.resources.insight import InsightQueries
from app.api.resources.jobs import JobQueries, JobSubscriptions
from app.api.resources.merge_policies import MergePolicyMutations, MergePolicyQueries
from app.api.resources.nodes import NodeQueries
from app.api.resources.pql import PqlQueries
from app.api.resources.previews import PreviewMutations, PreviewQueries, PreviewSubscriptions
from app.api.resources.profiles import ProfileQueries
from app.api.resources.sandboxes import SandboxMutations
from app.api.resources.schedule_writes import ScheduleMutations
from app.api.resources.schedules import ScheduleQueries
from app.api.resources.search import SearchQueries
from app.api.resources.segment_jobs import SegmentJobMutations, SegmentJobQueries, SegmentJobSubscriptions
from app.api.resources.uploads import BatchMutations
from app.api.scalars import CONFIG


@strawberry.type(description="Queries.")
class Query(
    NodeQueries,
    AudienceQueries,
    DefinitionQueries,
    SegmentJobQueries,
    ExportJobQueries,
    ErasureQueries,
    JobQueries,
    ScheduleQueries,
    PreviewQueries,
    MergePolicyQueries,
    DatasetQueries,
    ProfileQueries,
    InsightQueries,
    ExplainQueries,
    CompareQueries,
    PqlQueries,
    FolderQueries,
    SearchQueries,
    ApiKeyQueries,
    AuditQueries,
):
    pass


@strawberry.type(
    description=(
        "Mutations. `errors` reports what the caller did wrong; it is empty if and only if the mutation succeeded."
    )
)
class Mutation(
    AudienceMutations,
    DatasetMutations,
    BatchMutations,
    DefinitionMutations,
    SegmentJobMutations,
    ExportJobMutations,
    ErasureMutations,
    ScheduleMutations,
    PreviewMutations,
    FolderMutations,
    MergePolicyMutations,
    SandboxMutations,
    ApiKeyMutations,
):
    pass


@strawberry.type(description="Subscriptions.")
class Subscription(
    AudienceSubscriptions,
    HistorySubscriptions,
    SegmentJobSubscriptions,
    ExportJobSubscriptions,
    JobSubscriptions,
    PreviewSubscriptions,
):
    pass


@cache
def build_schema(limits: Limits) -> GatewaySchema:
    """The schema with its extensions; one instance per set of limits."""
    return GatewaySchema(Query, Mutation, Subscription, types=ERROR_TYPES, limits=limits, config=CONFIG)


def print_schema() -> str:
    """The schema as text, as in `schema.graphql`."""
    return build_schema(Limits()).as_str() + "\n"
