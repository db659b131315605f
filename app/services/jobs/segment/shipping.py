"""A segment job as JSON, with which another machine with the same lake can continue: versions, texts, rules and run
ids."""

from collections.abc import Collection, Sequence
from typing import Any

from app.engine.limits.budget import Budget
from app.engine.people.profiles import reopen
from app.engine.store.lake import Lake, TenantLake
from app.errors import EngineAway
from app.json_values import JsonObject
from app.scope import Scope, Tenant
from app.services.evaluation.conditions import Source, read_conditions
from app.services.evaluation.heads import Heads
from app.services.evaluation.pins import SegmentPins
from app.services.jobs.segment.prepare import SegmentRun
from app.services.merge_policies import policy_from_json, rule_of
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow

_DEFINITION = ("version", "expression", "merge_policy_id")


def lake_as_json(lake: TenantLake) -> JsonObject:
    whole = lake.lake
    return {
        "root": str(whole.root),
        "memory_limit": whole.memory_limit,
        "definition_memory": whole.budget.memory,
        "definition_seconds": whole.budget.seconds,
        "time_zone": whole.time_zone,
        "bucket_bits": _first_bits(lake),
    }


def lake_from_json(value: Any, tenant: Tenant) -> TenantLake:
    """Raises `EngineAway` if the lake has another layout here."""
    budget = Budget(value["definition_memory"], value["definition_seconds"])
    whole = Lake(value["root"], value["memory_limit"], 1, budget, value["time_zone"], must_exist=True)
    lake = whole.tenant(tenant)
    if (bits := _first_bits(lake)) != value["bucket_bits"]:
        raise EngineAway(
            f"{lake.folder} has {_buckets(bits)} there, and {_buckets(value['bucket_bits'])} here: mount one and the "
            "same data folder on every machine"
        )
    return lake


def _first_bits(lake: TenantLake) -> int | None:
    """Of the first buckets only: later ones may be added during the job."""
    layout = lake.layout()
    return layout.bits[0] if layout is not None else None


def _buckets(bits: int | None) -> str:
    return "no people" if bits is None else f"{1 << bits:,} buckets"


def run_as_json(run: SegmentRun, ids: Collection[str]) -> JsonObject:
    """The run with the definitions `ids`."""
    definitions = {id_: run.definitions[id_] for id_ in ids}
    return {
        "organisation": run.scope.organisation,
        "sandbox": run.scope.sandbox,
        "user": run.scope.user,
        "pins": run.pins.as_json(),
        "definitions": {id_: {name: getattr(row, name) for name in _DEFINITION} for id_, row in definitions.items()},
        "heads": run.heads.as_json(),
        "entries": {id_: list(entry) for id_, entry in run.entries.items()},
        "segments": sorted(run.segments),
        "aliases": dict(run.aliases),
        "references": {id_: sorted(run.references[id_]) for id_ in ids},
    }


def run_from_json(value: Any, lake: TenantLake, evaluated: Sequence[str]) -> SegmentRun:
    """The run with its data opened and its `evaluated` definitions checked."""
    scope = Scope(value["organisation"], value["sandbox"], value["user"])
    pins = SegmentPins.from_json(value["pins"])
    definitions = {
        id_: SegmentJobDefinitionRow(
            organisation=scope.organisation, sandbox=scope.sandbox, definition_id=id_, **definition
        )
        for id_, definition in value["definitions"].items()
    }
    rules = [rule_of(policy_from_json(scope.tenant, policy)) for policy in pins.merge_policies.values()]
    snapshots = {rule.id: reopen(lake, rule, (), pins.data_of(rule.id)) for rule in rules}
    run = SegmentRun(
        scope,
        pins.now,
        definitions,
        Heads.from_json(value["heads"]),
        {id_: (namespace, name) for id_, (namespace, name) in value["entries"].items()},
        frozenset(value["segments"]),
        value["aliases"],
        pins,
        snapshots,
        references={id_: frozenset(ids) for id_, ids in value["references"].items()},
    )
    sources = [
        Source(id_, row.expression, row.merge_policy_id, id_ not in pins.without_consent)
        for id_, row in definitions.items()
        if id_ in evaluated
    ]
    schemas = {policy: snapshot.schema for policy, snapshot in snapshots.items()}
    run.conditions = read_conditions(sources, schemas, run.segments, run.aliases).nodes
    return run
