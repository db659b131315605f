"""The profiles kept by a limit among those that match a condition, evaluated now."""

from collections.abc import Mapping, Sequence

from app.engine.insight.best import Limit, first_of
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Ordinals
from app.pql.core import Node
from app.services.insight.population import Population
from app.storage.columns import StoredValues

_HELD, _VALUE = "held", "value"


def keep_first(
    population: Population,
    condition: Node,
    kept: StoredValues,
    path: Sequence[str],
    *,
    threads: int,
    stopped: Stopped,
) -> Mapping[int, Ordinals]:
    """The first profiles by bucket, exactly: every profile is read. `kept` is a limit in the form stored by
    definitions.

    Raises `Cancelled`, and `Refusal` if its value cannot be evaluated.
    """
    value = population.value(kept["by"], path)
    scan = population.scan({_HELD: condition}, {_VALUE: value}, tolerant=True)
    first, failed = first_of(scan, {_HELD: Limit.of(_VALUE, kept)}, threads=threads, stopped=stopped)
    if _HELD in failed:
        raise failed[_HELD]
    return first[_HELD]
