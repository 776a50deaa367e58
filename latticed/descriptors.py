"""How many files this process may have open at once. A connection is one, a running command is some."""

import resource

MOST = 65_536
"""More are not asked for: some programs, which inherit the limit, go through all that they may have."""
_SHARE = 4
"""One in so many is not for connections: the database is opened anew after trouble, and commands need their pipes."""


def allow_many() -> None:
    """Allows as many as the system lets this process have. A shell begins with 1,024, which as many streams use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """How many of them connections may take."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (MOST if soft == resource.RLIM_INFINITY else soft) * (_SHARE - 1) // _SHARE
