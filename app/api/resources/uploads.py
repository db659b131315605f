"""Uploads batches to datasets, as files or rows, and deletes them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Self, cast

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info
from app.api.described import enum_value, mutation
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import global_id, need_id
from app.api.resources.csv_options import CsvOptionsInput
from app.api.resources.dataset_fields import DatasetField
from app.api.resources.datasets import Batch, RejectedRowReport
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.scalars import BigInt, Upload, given
from app.engine.ingest import rows as ingested
from app.engine.ingest.formats import DETECTED, FileFormat, InputFile
from app.engine.ingest.rows import NoGoodRows, RejectedRow
from app.errors import ErrorCode, Refusal
from app.pql.schema import numbers_alike
from app.pql.syntax.paths import leaf_paths
from app.services.datasets import deletion, uploads


@strawberry.enum(description="Format of a file. Each may be compressed by gzip, which is detected.")
class DataFormat(Enum):
    CSV = enum_value("CSV", description="Comma-separated values with a header line.")
    NDJSON = enum_value("NDJSON", description="One JSON object on each line, or a JSON array of objects.")
    PARQUET = enum_value("PARQUET", description="Apache Parquet.")


@strawberry.input(description="A file to load into a dataset.")
class UploadBatchInput:
    dataset_id: strawberry.ID = strawberry.field(description="Dataset to load the rows into.")
    file: Upload = strawberry.field(description="The file, sent according to the multipart request specification.")
    format: DataFormat = strawberry.field(description="Format of the file; gzip is detected.")
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Chosen by the client: the same key within 24 hours gives the same batch of the dataset, and "
        "nothing is loaded twice. Rejected with other content. The key of a batch that failed is free again.",
    )
    csv: CsvOptionsInput | None = strawberry.field(
        default=strawberry.UNSET, description="How the file is written, where that is not detected."
    )
    dry_run: bool | None = strawberry.field(default=False, description="Read and check everything, and store nothing.")


@strawberry.input(description="Rows for a dataset.")
class IngestRowsInput:
    dataset_id: strawberry.ID = strawberry.field(description="Dataset that the rows go to.")
    rows: list[JSON | None] = strawberry.field(
        description="1 to 10,000 JSON objects, with fields as the lines of an NDJSON file have them. Whatever else is "
        "among them, null too, is rejected by row."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Chosen by the client: the same key within 24 hours gives the same batch of the dataset, and "
        "nothing is loaded twice. Rejected with other content. The key of a batch that failed is free again.",
    )


@strawberry.type(description="What would be loaded from a file.")
class DryRun:
    row_count: BigInt = strawberry.field(
        description="Rows that would be loaded, including events that the dataset already has."
    )
    rejected_rows: BigInt = strawberry.field(description="Rows that would be rejected.")
    duplicate_rows: BigInt = strawberry.field(description="Valid rows that repeat an earlier row of the file.")
    fields: list[DatasetField] = strawberry.field(description="Paths and types of the file's fields.")
    new_fields: list[str] = strawberry.field(description="Columns that the dataset does not have yet.")

    @classmethod
    def of(cls, run: ingested.DryRun) -> Self:
        return cls(
            row_count=BigInt(run.row_count),
            rejected_rows=BigInt(run.rejected_rows),
            duplicate_rows=BigInt(run.duplicate_rows),
            fields=[
                DatasetField(path=path, type=str(numbers_alike(type_)))
                for path, type_ in leaf_paths(run.fields, run.above)
            ],
            new_fields=list(run.new_fields),
        )


@strawberry.type(description="Result of an upload.")
class BatchPayload:
    batch: Batch | None = strawberry.field(description="The batch; null if nothing was loaded.")
    rejected: list[RejectedRowReport] = strawberry.field(
        description="The first 20 rejected rows; `batch.rejectedRows` is the total."
    )
    warnings: list[str] = strawberry.field(
        description="Warnings, such as of columns that could be read in two ways and are loaded as text."
    )
    dry_run: DryRun | None = strawberry.field(description="With `dryRun`: what would be loaded.")
    errors: list[UserError] = errors_field()


BatchArgument = Annotated[UploadBatchInput, strawberry.argument(description="The file and its dataset.")]
RowsArgument = Annotated[IngestRowsInput, strawberry.argument(description="The rows and their dataset.")]


@strawberry.type
class BatchMutations:
    @mutation(
        description=(
            "Loads a file into a dataset as one batch: all accepted rows become visible "
            "together; rejected rows are counted and the first 20 reported."
        )
    )
    async def upload_batch(self, info: Info, input: BatchArgument) -> BatchPayload:
        services, scope = info.context.services, info.context.scope
        csv = given(input.csv)
        file = InputFile(input.file, cast(FileFormat, input.format.value), csv.as_options() if csv else DETECTED)

        async def load() -> uploads.Uploaded | ingested.DryRun:
            raw = need_id("Dataset", input.dataset_id, "dataset_id")
            if input.dry_run:
                return await uploads.try_upload(services.database, services.lake, scope, raw, file)
            return await uploads.upload_batch(
                services.database,
                services.lake,
                services.clock,
                scope,
                raw,
                file,
                _options(info, input.idempotency_key),
            )

        return await _loaded(info, load)

    @mutation(
        description="Adds up to 10,000 rows to a dataset in one batch: events of an EVENT dataset, records of a "
        "PROFILE dataset. All accepted rows become visible together, or none; rejected ones are counted, and the first "
        "20 reported by number."
    )
    async def ingest_rows(self, info: Info, input: RowsArgument) -> BatchPayload:
        services, scope = info.context.services, info.context.scope

        async def load() -> uploads.Uploaded:
            raw = need_id("Dataset", input.dataset_id, "dataset_id")
            async with uploads.rows_as_file(input.rows, services.uploads) as file:
                return await uploads.upload_batch(
                    services.database,
                    services.lake,
                    services.clock,
                    scope,
                    raw,
                    file,
                    _options(info, input.idempotency_key),
                )

        return await _loaded(info, load, {"file": ("rows",)})

    @mutation(
        description="Deletes a batch and its rows: records that it replaced become valid again, members of external "
        "audiences that no other batch contains leave, and streamed definitions are updated. Events that a later batch "
        "also contained are deleted too, since they were duplicates there. Batches have no `etag`."
    )
    async def delete_batch(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Batch", input.id, "id")
            if given(input.etag) is not None:
                message = f"batches never change and have no etag, such as {input.etag!r}: omit it"
                raise Refusal(ErrorCode.INVALID_INPUT, message, ("etag",))
            await deletion.delete_batch(
                services.database, services.lake, services.clock, scope, raw, services.batch_lease
            )
            return global_id("Batch", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)


def _options(info: Info, key: str | None) -> uploads.UploadOptions:
    return uploads.UploadOptions(given(key), info.context.stopping, info.context.services.batch_lease)


async def _loaded(
    info: Info,
    load: Callable[[], Awaitable[uploads.Uploaded | ingested.DryRun]],
    names: Mapping[str, Sequence[str]] | None = None,
) -> BatchPayload:
    """The payload of a batch; for a batch without usable rows, including the rejected ones."""
    rejected: list[RejectedRow] = []

    async def noting() -> uploads.Uploaded | ingested.DryRun:
        try:
            return await load()
        except NoGoodRows as refusal:
            rejected.extend(refusal.rejected)
            raise

    result, errors = await attempt(info, noting, "input", names=names)
    rejected.extend(result.rejected if result else ())
    return BatchPayload(
        batch=Batch.of(result.batch) if isinstance(result, uploads.Uploaded) else None,
        rejected=[RejectedRowReport.of(row) for row in rejected],
        warnings=list(result.warnings) if result else [],
        dry_run=DryRun.of(result) if isinstance(result, ingested.DryRun) else None,
        errors=errors,
    )
