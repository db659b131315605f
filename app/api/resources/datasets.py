"""Datasets and their batches of profiles or events."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Self, cast

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import enum_value, mutation, resolver
from app.api.errors import UserError, attempt, errors_field
from app.api.execution.relation import Many
from app.api.global_ids import Node, find_id, global_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import one_name
from app.api.lists.relations import to_many
from app.api.resources.dataset_fields import VALUES, DatasetField, FieldStatistics, PathsArgument, ValuesArgument
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.scalars import BigInt, given
from app.engine.ingest.rows import RejectedRow
from app.errors import ErrorCode, Refusal
from app.services.datasets import datasets, deletion
from app.services.insight import fields
from app.services.lists.paging import PageRequest
from app.storage.tables import datasets as tables
from app.storage.tables.datasets import BatchRow, DatasetRow


@strawberry.enum(description="Kind of the rows of a dataset.")
class DatasetKind(Enum):
    PROFILE = enum_value("PROFILE", description="Records: one row of attributes for each profile.")
    EVENT = enum_value("EVENT", description="Events: one row for each, with its time.")
    AUDIENCE = enum_value("AUDIENCE", description="Members of external audiences.")
    EXPORT = enum_value("EXPORT", description="Profiles written by export jobs.")


@strawberry.enum(description="Status of a batch.")
class BatchStatus(Enum):
    LOADING = enum_value("LOADING", description="The rows are being read; none is visible yet.")
    ACTIVE = enum_value("ACTIVE", description="The accepted rows are in the dataset.")
    FAILED = enum_value("FAILED", description="No row is in the dataset.")
    DELETING = enum_value("DELETING", description="The rows are being removed; the batch is deleted soon.")


@strawberry.type(name="RejectedRow", description="A rejected row.")
class RejectedRowReport:
    row: BigInt = strawberry.field(description="Row number in the file, from 1, not counting a header.")
    message: str = strawberry.field(description="What is wrong with it.")

    @classmethod
    def of(cls, rejected: RejectedRow) -> Self:
        return cls(row=BigInt(rejected.row), message=rejected.message)


@strawberry.type(description="An upload to a dataset; all of its accepted rows become visible together.")
class Batch(Node):
    batch_id: str = strawberry.field(description="Raw id.")
    status: BatchStatus = strawberry.field(description="Status.")
    row_count: BigInt = strawberry.field(description="Accepted rows.")
    rejected_rows: BigInt = strawberry.field(description="Rejected rows.")
    duplicate_rows: BigInt = strawberry.field(
        description=(
            "Duplicate rows, already stored or repeated in the file: events by their `_id`, records by their profile."
        )
    )
    bytes: BigInt = strawberry.field(description="Size of the file as sent, in bytes.")
    segment_ids: list[str] = strawberry.field(description="For exports: segments whose members it holds.")
    created_at: datetime = strawberry.field(description="Arrival time.")
    error: str | None = strawberry.field(
        description="For FAILED: why, and what to do. It may quote a value, so it needs `profiles:read`."
    )
    of_dataset: strawberry.Private[str]

    @classmethod
    def of(cls, row: BatchRow) -> Self:
        return cls(
            id=global_id("Batch", row.id),
            batch_id=row.id,
            status=BatchStatus(row.status),
            row_count=BigInt(row.row_count),
            rejected_rows=BigInt(row.rejected_rows),
            duplicate_rows=BigInt(row.duplicate_rows),
            bytes=BigInt(row.bytes),
            segment_ids=row.segment_ids,
            created_at=row.created_at,
            error=row.error,
            of_dataset=row.dataset_id,
        )

    @resolver(
        description="The first 20 rejected rows, without those that name an erased person. Messages quote values, so "
        "it needs `profiles:read`."
    )
    async def rejected(self, info: Info) -> list[RejectedRowReport]:
        if self.rejected_rows == 0:
            return []
        rows = await info.context.loaders.rejected_of_batch.load((self.of_dataset, self.batch_id))
        return [RejectedRowReport.of(row) for row in rows]

    @resolver(description="Its dataset.")
    async def dataset(self, info: Info) -> "Dataset":
        row = await info.context.loaders.dataset.load(self.of_dataset)
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"the dataset of batch {self.batch_id} has been deleted meanwhile")
        return Dataset.of(row)

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.batch.load(raw)
        return None if row is None else cls.of(row)


@strawberry.type(description="Column that identifies the profile of a row.")
class PrimaryIdentity:
    column: str = strawberry.field(description="Column with the id of the profile, read as text exactly as written.")
    namespace: str = strawberry.field(description="Namespace of the ids.")

    @classmethod
    def of(cls, row: DatasetRow) -> Self | None:
        if row.identity_column is None or row.namespace is None:
            return None
        return cls(column=row.identity_column, namespace=row.namespace)


@strawberry.type(description="A named table of profiles or events that batches add to.")
class Dataset(Node):
    dataset_id: str = strawberry.field(description="Raw id.")
    name: str = strawberry.field(description="Name, unique in the sandbox.")
    kind: DatasetKind = strawberry.field(description="Kind of its rows.")
    row_count: BigInt = strawberry.field(description="Number of rows in all batches.")
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change of its rows.")
    primary_identity: PrimaryIdentity | None = strawberry.field(
        description="Column that identifies the profile of a row; null for EXPORT."
    )
    timestamp_column: str | None = strawberry.field(
        description="Column with the time of an event, or of the last change of a record."
    )
    etag: str = strawberry.field(description="Changes with every update; send it in an update to reject lost updates.")

    @resolver(description="JSON Schema (2020-12) of its rows: what was declared, widened by what arrived.")
    async def schema(self, info: Info) -> JSON:
        return cast(JSON, await info.context.loaders.schema_of_dataset.load(self.dataset_id))

    @resolver(description="Fields of its rows, as PQL sees them; empty before the first batch or schema.")
    async def fields(self, info: Info) -> list[DatasetField]:
        paths = await info.context.loaders.fields_of_dataset.load(self.dataset_id)
        return [DatasetField(path=self.root + path, type=type_) for path, type_ in paths]

    @resolver(
        description="Fill rates and frequent values of fields, exact unless `approximate`; kept as long as the rows "
        "stay. Values are those of people, so it needs `profiles:read`."
    )
    async def field_statistics(
        self, info: Info, paths: PathsArgument = strawberry.UNSET, values: ValuesArgument = VALUES
    ) -> list[FieldStatistics]:
        operation, most = info.context, VALUES if values is None else values
        lake, tenant = operation.services.lake, operation.scope.tenant
        measured = await fields.measure(lake, tenant, self.dataset_id, self.root, given(paths), most)
        return [FieldStatistics.of(field, most) for field in measured]

    @property
    def root(self) -> str:
        """The prefix of the paths of its fields."""
        return "xEvent." if self.kind is DatasetKind.EVENT else ""

    @to_many("Batches, newest first.", of="dataset_id")
    @staticmethod
    def batches(loaders: Loaders) -> Many[Batch]:
        return Many(loaders.batches_of_dataset, loaders.batch_count_of_dataset, Batch.of)

    @classmethod
    def of(cls, row: DatasetRow) -> Self:
        return cls(
            id=global_id("Dataset", row.id),
            dataset_id=row.id,
            name=row.name,
            kind=DatasetKind(row.kind),
            row_count=BigInt(row.row_count),
            created_at=row.created_at,
            updated_at=row.updated_at,
            primary_identity=PrimaryIdentity.of(row),
            timestamp_column=row.timestamp_column,
            etag=str(row.revision),
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.dataset.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(description="Primary identity of the rows.")
class PrimaryIdentityInput:
    column: str = strawberry.field(description="Column with the id of the profile, read as text exactly as written.")
    namespace: str = strawberry.field(description="Namespace of the ids, for example `customer` or `email`.")


@strawberry.input(description="The dataset to create.")
class CreateDatasetInput:
    name: str = strawberry.field(description="Name, unique in the sandbox.")
    kind: DatasetKind = strawberry.field(description="Kind of its rows.")
    primary_identity: PrimaryIdentityInput | None = strawberry.field(
        default=strawberry.UNSET, description="Column that identifies the profile of a row; required except for EXPORT."
    )
    timestamp_column: str | None = strawberry.field(
        default=strawberry.UNSET, description="For EVENT: column with the time of the event."
    )
    schema: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="JSON Schema of a row (an XDM schema is one). `type` string, integer, number, boolean, object, "
        "array; `format` date, date-time; an object with `additionalProperties` and no `properties` is a map. "
        "`$ref`, `allOf`, `required`, `enum` and bounds are followed: a row that breaks one is rejected. "
        "Declared fields can be used in expressions before there is any data.",
    )

    def as_new(self) -> datasets.NewDataset:
        identity = given(self.primary_identity)
        return datasets.NewDataset(
            name=self.name,
            kind=tables.DatasetKind(self.kind.value),
            identity_column=identity and identity.column,
            namespace=identity and identity.namespace,
            timestamp_column=given(self.timestamp_column),
            schema=given(self.schema),
        )


@strawberry.input(description="Changes to a dataset: only the given fields change.")
class UpdateDatasetInput:
    id: strawberry.ID = strawberry.field(description="Global id or raw `datasetId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name, unique in the sandbox.")
    schema: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="JSON Schema of a row, as in `createDataset`. Fields with data stay; their types may only widen.",
    )

    def as_changes(self) -> datasets.DatasetChanges:
        changes = datasets.DatasetChanges()
        if (name := given(self.name)) is not None:
            changes["name"] = name
        if (schema := given(self.schema)) is not None:
            changes["schema"] = schema
        return changes


@strawberry.type(description="Result of a mutation of a dataset.")
class DatasetPayload:
    dataset: Dataset | None = strawberry.field(description="The dataset; null if rejected.")
    errors: list[UserError] = errors_field()


DatasetId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `datasetId`.")]
BatchId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `batchId`.")]
Kind = Annotated[DatasetKind | None, strawberry.argument(description="Only datasets of this kind.")]
NewDatasetArgument = Annotated[CreateDatasetInput, strawberry.argument(description="The object to create.")]
DatasetChangesArgument = Annotated[UpdateDatasetInput, strawberry.argument(description="The changes.")]

_IDENTITY = {"identity_column": ("primaryIdentity", "column"), "namespace": ("primaryIdentity", "namespace")}


@strawberry.type
class DatasetQueries:
    @resolver(description="A dataset by its id.")
    async def dataset(self, info: Info, id: DatasetId) -> Dataset | None:
        raw = find_id("Dataset", id)
        return None if raw is None else await Dataset.fetch(info.context, raw)

    @resolver(description="A batch by its id.")
    async def batch(self, info: Info, id: BatchId) -> Batch | None:
        raw = find_id("Batch", id)
        return None if raw is None else await Batch.fetch(info.context, raw)

    @connection(description="The datasets of the sandbox, oldest first.")
    async def datasets(
        self,
        info: Info,
        page: PageRequest,
        kind: Kind = strawberry.UNSET,
    ) -> Connection[Dataset]:
        operation = info.context
        kind_name = one_name(kind)
        return await connect(
            info,
            lambda: operation.read(lambda session: datasets.page(session, operation.scope, page, kind_name)),
            Dataset.of,
            lambda: operation.read(lambda session: datasets.count(session, operation.scope, kind_name)),
        )


@strawberry.type
class DatasetMutations:
    @mutation(description="Creates an empty dataset.")
    async def create_dataset(self, info: Info, input: NewDatasetArgument) -> DatasetPayload:
        services, scope = info.context.services, info.context.scope
        row, errors = await attempt(
            info,
            lambda: datasets.create(services.database, services.clock, scope, input.as_new(), services.lake),
            "input",
            names=_IDENTITY,
        )
        return DatasetPayload(dataset=None if row is None else Dataset.of(row), errors=errors)

    @mutation(description="Updates a dataset: its name, or the declared schema of its rows.")
    async def update_dataset(self, info: Info, input: DatasetChangesArgument) -> DatasetPayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> DatasetRow:
            raw, etag = need_id("Dataset", input.id, "id"), given(input.etag)
            return await datasets.update(
                services.database, services.lake, services.clock, scope, raw, etag, input.as_changes()
            )

        row, errors = await attempt(info, update, "input")
        return DatasetPayload(dataset=None if row is None else Dataset.of(row), errors=errors)

    @mutation(
        description=(
            "Deletes a dataset with its rows and batches; profiles without any other data disappear. "
            "Rejected while anything depends on it, and while a batch is being loaded."
        )
    )
    async def delete_dataset(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Dataset", input.id, "id")
            await deletion.delete_dataset(
                services.database, services.lake, services.clock, scope, raw, given(input.etag)
            )
            return global_id("Dataset", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)
