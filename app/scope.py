"""The tenant and caller of a call; a leaf that imports none of our modules."""

from dataclasses import dataclass

EVERYTHING = frozenset({"read", "write", "run", "admin"})
"""The permissions of an unrestricted caller."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One sandbox of one organisation: the partition that every resource belongs to."""

    organisation: str
    sandbox: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant and the caller. All reads and writes of `services` are limited to the tenant."""

    organisation: str
    sandbox: str
    user: str
    permissions: frozenset[str] = EVERYTHING
    sandboxes: frozenset[str] | None = None
    """The sandboxes that the caller may choose; None for all of the organisation."""

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.organisation, self.sandbox)

    @property
    def unlimited(self) -> bool:
        return self.permissions >= EVERYTHING

    def allows(self, need: str) -> bool:
        """Whether the caller has the permission `need`, such as `audiences:write`, either by that name or by
        `write`."""
        return need in self.permissions or need.rpartition(":")[2] in self.permissions
