"""Fields that audiences and segment definitions share: where they are filed, and what evaluates them."""

from typing import TYPE_CHECKING, Annotated

import strawberry

from app.api.context.loaders import Loaders
from app.api.execution.relation import Many, One
from app.api.global_ids import node_type
from app.api.lists.relations import to_many, to_one
from app.api.resources.folders import Folder
from app.api.resources.jobs import JobFilterArgument, segment_job_filter

if TYPE_CHECKING:
    from app.api.resources.schedules import Schedule
    from app.api.resources.segment_jobs import SegmentJob


@strawberry.type
class Evaluated:
    raw: strawberry.Private[str]
    folder_id: strawberry.Private[str | None]

    @to_one("Folder; null at the root.", of="folder_id")
    @staticmethod
    def folder(loaders: Loaders) -> One[Folder]:
        return One(loaders.folder, Folder.of)

    @to_many("Schedules that evaluate it, by name: those that list it, and those for all audiences.", of="raw")
    @staticmethod
    def schedules(loaders: Loaders) -> Many[Annotated["Schedule", strawberry.lazy("app.api.resources.schedules")]]:
        return Many(loaders.schedules_of_audience, loaders.schedule_count_of_audience, node_type("Schedule").of)

    @to_many("Jobs that evaluated it, newest first.", of="raw")
    @staticmethod
    def jobs(
        loaders: Loaders, filter: JobFilterArgument = strawberry.UNSET
    ) -> Many[Annotated["SegmentJob", strawberry.lazy("app.api.resources.segment_jobs")]]:
        pages, counts = loaders.jobs_of_definition, loaders.job_count_of_definition
        return Many(pages, counts, node_type("SegmentJob").of, (segment_job_filter(filter),))
