"""Fill rates and frequent values of the fields of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.ingest.rows import user_fields
from app.engine.insight.fields import MOST_VALUES, FieldStatistics, field_statistics
from app.engine.limits.pool import Stopped
from app.engine.store.checksums import FileLost
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.pql.schema import ObjectType, leaves, numbers_alike
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.paths import path_names, written_path
from app.scope import Tenant
from app.services.insight.population import in_thread

MOST_FIELDS = 100


@dataclass(frozen=True, slots=True)
class FieldInNumbers:
    path: str
    type: str
    statistics: FieldStatistics


async def measure(
    lake: Lake, tenant: Tenant, dataset_id: str, root: str, paths: Sequence[str] | None, values: int
) -> list[FieldInNumbers]:
    """Statistics of the fields at `paths`, in order, or of the first 100, in the newest version of the dataset.

    Paths are PQL paths that start with `root`. Raises `Refusal` for an unknown path, and for too many.
    """
    if not 0 <= values <= MOST_VALUES:
        raise Refusal(ErrorCode.INVALID_INPUT, f"`values` is from 0 to {MOST_VALUES}, not {values}", ("values",))
    if paths is not None and len(paths) > MOST_FIELDS:
        message = f"{len(paths)} paths are given, and at most {MOST_FIELDS} are allowed: ask again for the others"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("paths",))
    return await in_thread(lambda stopped: _measured(lake, tenant, dataset_id, root, paths, stopped))


def _measured(
    lake: Lake, tenant: Tenant, dataset_id: str, root: str, paths: Sequence[str] | None, stopped: Stopped
) -> list[FieldInNumbers]:
    folder = lake.tenant(tenant).dataset(dataset_id)
    while True:
        table = open_table(folder)
        schema = ObjectType() if table is None else user_fields(table.schema)
        fields = {root + written_path(path): (path, type_) for path, type_ in leaves(schema)}
        requested = None if paths is None else [written_path(path_names(path) or ()) for path in paths]
        selected = list(fields)[:MOST_FIELDS] if requested is None else requested
        for at, path in enumerate(selected):
            if path not in fields:
                path = path if paths is None else paths[at]
                message = f"the dataset has no field {path!r}{did_you_mean(nearest(path, fields))}"
                raise Refusal(ErrorCode.INVALID_INPUT, message, ("paths", str(at)))
        if table is None:
            return []
        places = [fields[path][0] for path in dict.fromkeys(selected)]
        try:
            counted = field_statistics(table, places, threads=lake.threads, stopped=stopped)
        except FileNotFoundError:
            # A newer version may have been committed during the read, and the files of this one deleted.
            if (newest := open_table(folder)) is not None and newest.version == table.version:
                raise FileLost from None
            continue
        return [
            FieldInNumbers(path, str(numbers_alike(type_)), counted[place])
            for path in selected
            for place, type_ in [fields[path]]
        ]
