"""What each role may do in a registry."""

from __future__ import annotations

import enum

from tieline.http.users import Role


class Access(enum.Enum):
    """What a route needs."""

    READ = "read"
    WRITE = "write"


READ, WRITE = Access.READ, Access.WRITE

REQUIRED_ROLE = {READ: Role.VIEWER, WRITE: Role.OPERATOR}
"""The least role for each access. Roles that include it have the access too."""
