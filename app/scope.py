"""Whose data a call may touch; a leaf that imports nothing of ours."""

from dataclasses import dataclass

EVERYTHING = frozenset({"read", "write", "run", "admin"})
"""The permissions of whoever may do everything."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One sandbox of one organisation: the partition that every resource belongs to."""

    organisation: str
    sandbox: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant of a call and who calls. Every read and write of `services` is within it."""

    organisation: str
    sandbox: str
    user: str
    permissions: frozenset[str] = EVERYTHING
    sandboxes: frozenset[str] | None = None
    """Those that the caller may choose from; None for all of the organisation."""

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.organisation, self.sandbox)

    @property
    def unlimited(self) -> bool:
        return self.permissions >= EVERYTHING

    def allows(self, need: str) -> bool:
        """Whether the caller has the permission `need`, such as `audiences:write`: by its name, or by `write`."""
        return need in self.permissions or need.rpartition(":")[2] in self.permissions
