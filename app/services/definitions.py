"""Segment definitions: named, versioned expressions; each shares its id with the audience that it computes."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.lake import Lake
from app.errors import ErrorCode, ExpressionRefused, HasDependents, Refusal, Refusals, StaleEtag
from app.pql.checker import Checked
from app.scope import Scope
from app.services import merge_policies
from app.services.expressions import ExpressionFormat, Vocabulary, as_text, vocabulary
from app.services.filters import DateTimeFilter, OrderBy, StringFilter
from app.services.names import refuse_bad_name
from app.services.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow, DefinitionVersionRow
from app.storage.tenancy import within

MOST_DEFINITIONS = 4_000
PROFILE_SCHEMA = "_xdm.context.profile"
"""The one schema that expressions are about."""
