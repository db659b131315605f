"""Search over audiences and folders in Lucene syntax."""

from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.global_ids import Node, find_id, global_id, node_type, split_id
from app.api.lists.connections import PageInfo, connection
from app.api.resources.folders import Folder
from app.api.scalars import given
from app.errors import ExpressionRefused
from app.services.lists.paging import PageRequest
from app.services.search import find as search
from app.services.search.entries import Entry


@strawberry.type(description="A hit: an audience or a folder.")
class SearchHit:
    id: strawberry.ID = strawberry.field(description="Global id of the object.")
    name: str = strawberry.field(description="Name.")
    description: str | None = strawberry.field(description="Description.")
    namespace: str = strawberry.field(description="Namespace that it is in.")
    is_folder: bool = strawberry.field(description="Whether it is a folder.")
    score: float = strawberry.field(description="Relevance, comparable within one search only; 0 for an empty term.")
    kind: strawberry.Private[str]
    raw: strawberry.Private[str]
    folder_id: strawberry.Private[str | None]

    @resolver(description="Folder; null at the root.")
    async def parent_folder(self, info: Info) -> Folder | None:
        return await Folder.fetch_maybe(info.context, self.folder_id)

    @resolver(description="The audience or folder; null if it was just deleted.")
    async def node(self, info: Info) -> Node | None:
        node: Node | None = await node_type(self.kind).fetch(info.context, self.raw)
        return node

    @classmethod
    def of(cls, entry: Entry, score: float = 0.0) -> Self:
        return cls(
            id=global_id(entry.kind, entry.id),
            name=entry.name,
            description=entry.description,
            namespace=entry.namespace,
            is_folder=entry.kind == "Folder",
            score=score,
            kind=entry.kind,
            raw=entry.id,
            folder_id=entry.folder_id,
        )


@strawberry.type(description="A syntax error of a search term.")
class SearchError:
    message: str = strawberry.field(description="What is wrong, and what to do.")
    position: int = strawberry.field(description="Position in the term, in characters from 1.")

    @classmethod
    def of(cls, refusal: ExpressionRefused) -> Self:
        diagnostic = refusal.diagnostics[0]
        return cls(message=diagnostic.message, position=diagnostic.column)


@strawberry.type(description="A hit, with its cursor.")
class SearchEdge:
    node: SearchHit = strawberry.field(description="The hit.")
    cursor: str = strawberry.field(description="Opaque position of the hit, for `after` or `before`.")


@strawberry.type(description="A page of hits, best first.")
class SearchConnection:
    edges: list[SearchEdge] = strawberry.field(description="Hits of the page with their cursors.")
    nodes: list[SearchHit] = strawberry.field(description="Hits of the page.")
    page_info: PageInfo = strawberry.field(description="Position of the page among the hits.")
    total_count: int = strawberry.field(description="Total number of hits.")
    error: SearchError | None = strawberry.field(
        description="Syntax error of the term; null if it is valid. A term with an error has no hits."
    )

    @classmethod
    def of(cls, found: search.FoundPage | None, error: SearchError | None = None) -> Self:
        items = found.page.items if found else []
        cursors = found.page.cursors if found else []
        nodes = [SearchHit.of(item.entry, item.score) for item in items]
        return cls(
            edges=[SearchEdge(node=node, cursor=cursor) for node, cursor in zip(nodes, cursors, strict=True)],
            nodes=nodes,
            page_info=PageInfo(
                has_next_page=found.page.has_next if found else False,
                has_previous_page=found.page.has_previous if found else False,
                start_cursor=cursors[0] if cursors else None,
                end_cursor=cursors[-1] if cursors else None,
            ),
            total_count=found.total if found else 0,
            error=error,
        )


@strawberry.type(description="A namespace with its number of hits.")
class SearchNamespace:
    namespace: str = strawberry.field(description="Namespace, for example `AEPSegments`.")
    display_name: str = strawberry.field(description="Display name.")
    count: int = strawberry.field(description="Number of hits in it.")


@strawberry.type(description="Number of hits by namespace.")
class SearchNamespaces:
    namespaces: list[SearchNamespace] = strawberry.field(
        description="Every namespace in use, including those without a hit; most hits first."
    )
    total: int = strawberry.field(description="Total number of hits.")
    error: SearchError | None = strawberry.field(
        description="Syntax error of the term; null if it is valid. A term with an error has no hits."
    )


Term = Annotated[
    str,
    strawberry.argument(
        description=(
            'Search term in Lucene syntax: words, AND OR NOT + - ( ), `run*`, `cam?`, "phrases", '
            '`blue~1`, "hotel airport"~5, /[mh]otel/, and the fields name, segmentName, segmentDescription, segmentId, '
            "folderId, parentFolderId, folderLocation. Empty for everything."
        )
    ),
]
OneNamespace = Annotated[str, strawberry.argument(description="Namespace that the object is in.")]
Namespace = Annotated[str | None, strawberry.argument(description="Only in this namespace.")]
InFolder = Annotated[
    strawberry.ID | None,
    strawberry.argument(description="Only in this folder and those within it, by global or raw id."),
]
ObjectId = Annotated[
    strawberry.ID,
    strawberry.argument(description="Global id of an audience, a definition or a folder, or the raw one."),
]


@strawberry.type
class SearchQueries:
    @connection(
        description="Full-text search over names and descriptions of audiences, definitions and folders; without "
        "`folders:read` audiences only, and not by their folders."
    )
    async def search(
        self,
        info: Info,
        term: Term,
        namespace: Namespace = strawberry.UNSET,
        folder_id: InFolder = strawberry.UNSET,
        *,
        page: PageRequest,
    ) -> SearchConnection:
        operation = info.context
        folder = given(folder_id)
        inside = None if folder is None else find_id("Folder", folder) or ""
        try:
            page_found = await operation.read(
                lambda session: search.find(
                    operation.services.search, session, operation.scope, term, page, given(namespace), inside
                )
            )
        except ExpressionRefused as refusal:
            return SearchConnection.of(None, SearchError.of(refusal))
        return SearchConnection.of(page_found)

    @resolver(description="Number of hits in each namespace; folders count with `folders:read`.")
    async def search_namespaces(self, info: Info, term: Term) -> SearchNamespaces:
        operation = info.context
        try:
            hits = await operation.read(
                lambda session: search.namespaces(operation.services.search, session, operation.scope, term)
            )
        except ExpressionRefused as refusal:
            return SearchNamespaces(namespaces=[], total=0, error=SearchError.of(refusal))
        return SearchNamespaces(
            namespaces=[
                SearchNamespace(namespace=each.namespace, display_name=each.display_name, count=each.count)
                for each in hits
            ],
            total=sum(each.count for each in hits),
            error=None,
        )

    @resolver(description="The folders from the root to the object, and the object last; empty if it does not exist.")
    async def taxonomy(self, info: Info, namespace: OneNamespace, id: ObjectId) -> list[SearchHit]:
        operation, (name, raw) = info.context, split_id(id)
        chain = await operation.read(
            lambda session: search.taxonomy(session, operation.scope, namespace, _KINDS.get(name, ()), raw)
        )
        return [SearchHit.of(entry) for entry in chain]


_KINDS = {
    None: ("Audience", "Folder"),
    "Audience": ("Audience",),
    "SegmentDefinition": ("Audience",),
    "Folder": ("Folder",),
}
"""Type in a global id → the kinds it may refer to; a raw id may be any of them."""
