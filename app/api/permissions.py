"""The permissions that each part of the schema requires: one table, and a check that it covers the whole schema."""

from collections.abc import Iterator, Mapping

from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema

from app.errors import ErrorCode, Refusal
from app.scope import Scope

ANYONE = ""
"""Fields that any authenticated caller may use."""

NEEDS: dict[str, str] = {
    # Object types, wherever a field returns one; an entry `Type.field` takes precedence over the type it returns.
    "Audience": "audiences:read",
    "Audience.members": "profiles:read",
    "Audience.changes": "profiles:read",
    "Audience.difference": "profiles:read",
    "Audience.statistics": "profiles:read",
    "SegmentDefinition": "definitions:read",
    "DefinitionVersion": "definitions:read",
    "MergePolicy": "mergePolicies:read",
    "Dataset": "datasets:read",
    "Dataset.fieldStatistics": "profiles:read",
    "Batch": "datasets:read",
    "Batch.rejected": "profiles:read",
    "Batch.error": "profiles:read",
    "Folder": "folders:read",
    "Schedule": "schedules:read",
    "Job": "jobs:read exports:read",
    "SegmentJob": "jobs:read",
    "ExportJob": "exports:read",
    "ErasureJob": "erasures:read",
    "Preview": "previews:read",
    "Estimate": "previews:read",
    "Profile": "profiles:read",
    "Membership": "profiles:read",
    "MembershipChange": "profiles:read",
    "SearchHit": "audiences:read",
    "ApiKey": "keys:admin",
    "AuditEvent": "audit:admin",
    # Queries.
    "Query.node": ANYONE,  # by the type of the id, see `fetch_node`
    "Query.nodes": ANYONE,
    "Query.viewer": ANYONE,
    "Query.audience": "audiences:read",
    "Query.audiences": "audiences:read",
    "Query.segmentDefinition": "definitions:read",
    "Query.segmentDefinitions": "definitions:read",
    "Query.pql": "definitions:read",
    "Query.mergePolicy": "mergePolicies:read",
    "Query.mergePolicies": "mergePolicies:read",
    "Query.dataset": "datasets:read",
    "Query.datasets": "datasets:read",
    "Query.batch": "datasets:read",
    "Query.folder": "folders:read",
    "Query.folders": "folders:read",
    "Query.search": "audiences:read",
    "Query.searchNamespaces": "audiences:read",
    "Query.taxonomy": "audiences:read folders:read",
    "Query.segmentJob": "jobs:read",
    "Query.segmentJobs": "jobs:read",
    "Query.jobs": "jobs:read exports:read",
    "Query.exportJob": "exports:read",
    "Query.exportJobs": "exports:read",
    "Query.erasureJob": "erasures:read",
    "Query.schedule": "schedules:read",
    "Query.schedules": "schedules:read",
    "Query.preview": "previews:read",
    "Query.previews": "previews:read",
    "Query.estimate": "previews:read",
    "Query.profile": "profiles:read",
    "Query.profiles": "profiles:read",
    "Query.explain": "profiles:read",
    "Query.overlap": "audiences:read profiles:read",
    "Query.compare": "audiences:read profiles:read",
    "Query.apiKeys": "keys:admin",
    "Query.auditEvents": "audit:admin",
    # Mutations.
    "Mutation.createAudience": "audiences:write",
    "Mutation.updateAudience": "audiences:write",
    "Mutation.replaceAudience": "audiences:write",
    "Mutation.deleteAudience": "audiences:write",
    "Mutation.updateAudienceMetrics": "audiences:write",
    "Mutation.createSegmentDefinition": "definitions:write",
    "Mutation.updateSegmentDefinition": "definitions:write",
    "Mutation.deleteSegmentDefinition": "definitions:write",
    "Mutation.createMergePolicy": "mergePolicies:write",
    "Mutation.updateMergePolicy": "mergePolicies:write",
    "Mutation.deleteMergePolicy": "mergePolicies:write",
    "Mutation.createDataset": "datasets:write",
    "Mutation.updateDataset": "datasets:write",
    "Mutation.deleteDataset": "datasets:write",
    "Mutation.uploadBatch": "datasets:write",
    "Mutation.ingestRows": "datasets:write",
    "Mutation.deleteBatch": "datasets:write",
    "Mutation.createFolder": "folders:write",
    "Mutation.updateFolder": "folders:write",
    "Mutation.deleteFolder": "folders:write",
    "Mutation.createSegmentJob": "jobs:run",
    "Mutation.cancelSegmentJob": "jobs:run",
    "Mutation.createExportJob": "exports:run",
    "Mutation.cancelExportJob": "exports:run",
    "Mutation.createPreview": "previews:run",
    "Mutation.cancelPreview": "previews:run",
    "Mutation.createSchedule": "schedules:write",
    "Mutation.updateSchedule": "schedules:write",
    "Mutation.deleteSchedule": "schedules:write",
    "Mutation.addScheduleAudiences": "schedules:write",
    "Mutation.removeScheduleAudiences": "schedules:write",
    "Mutation.triggerSchedule": "schedules:run",
    "Mutation.eraseProfile": "erasures:admin",
    "Mutation.updateSandbox": "sandboxes:admin",
    "Mutation.createApiKey": "keys:admin",
    "Mutation.revokeApiKey": "keys:admin",
    # Subscriptions.
    "Subscription.audienceUpdated": "audiences:read",
    "Subscription.segmentJobUpdated": "jobs:read",
    "Subscription.segmentJobsUpdated": "jobs:read",
    "Subscription.exportJobUpdated": "exports:read",
    "Subscription.exportJobsUpdated": "exports:read",
    "Subscription.jobsUpdated": "jobs:read exports:read",
    "Subscription.estimateUpdated": "previews:read",
    "Subscription.membershipChanged": "profiles:read",
}
"""Required permissions by schema coordinate, separated by spaces, as `resource:verb`. A caller has a permission by its
full name or by the bare verb, which covers every resource."""

VERBS = frozenset({"read", "write", "run", "admin"})

RESOURCES = frozenset(need.partition(":")[0] for needs in NEEDS.values() for need in needs.split()) | {"metrics"}


def is_permission(text: str) -> bool:
    """Whether a token or key may contain it: a verb, or `resource:verb`.

    >>> is_permission("read"), is_permission("audiences:write"), is_permission("audiences"), is_permission("x:read")
    (True, True, False, False)
    """
    resource, colon, verb = text.rpartition(":")
    return verb in VERBS and (resource in RESOURCES if colon else True)


def refusals(scope: Scope, needs: Mapping[str, str]) -> list[Refusal]:
    """The permissions in `needs` that the caller lacks; each need has the schema coordinate that requires it."""
    return [
        Refusal(
            ErrorCode.FORBIDDEN,
            f"{coordinate} needs the permission {need}, and the caller has "
            f"{', '.join(sorted(scope.permissions)) or 'none'}: use a token or key that carries it",
        )
        for need, coordinate in needs.items()
        if not scope.allows(need)
    ]


def refuse_type(scope: Scope, type_name: str) -> None:
    """For an id that contains the type of its object. Raises `Refusal`."""
    for refusal in refusals(scope, dict.fromkeys(NEEDS[type_name].split(), type_name)):
        raise refusal


def uncovered(schema: GraphQLSchema) -> Iterator[str]:
    """The parts of the schema that the table does not cover, each with what to add."""
    for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
        coordinates = [f"{root.name}.{name}" for name in root.fields] if root else []
        yield from (_advice(coordinate) for coordinate in coordinates if coordinate not in NEEDS)
    node = schema.type_map["Node"]
    for name, type_ in schema.type_map.items():
        objects = isinstance(type_, GraphQLObjectType | GraphQLInterfaceType) and node in type_.interfaces
        if objects and name not in NEEDS:
            yield _advice(name)


def _advice(coordinate: str) -> str:
    return (
        f'{coordinate} has no permission: add `"{coordinate}": "<resource>:<read|write|run|admin>",` to NEEDS in '
        "app/api/permissions.py (ANYONE only if it shows nothing of a sandbox)"
    )
