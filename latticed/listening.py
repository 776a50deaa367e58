"""Where the daemon listens: at the sockets that systemd holds for it, or where its configuration says."""

import socket

from latticed import forks
from latticed.config import ServerConfig
from latticed.errors import LatticedError
from latticed.systemd import listen_sockets


class CannotListen(LatticedError):
    """The address cannot be listened on."""


def open_doors(server: ServerConfig) -> list[socket.socket]:
    """The sockets to listen on.

    Raises:
        CannotListen: what is configured is taken, or cannot be had.
    """
    doors = listen_sockets() or [_listen(server)]
    for door in doors:
        forks.withhold(door.fileno())
    return doors


def _listen(server: ServerConfig) -> socket.socket:
    try:
        if server.unix_socket is not None:
            server.unix_socket.unlink(missing_ok=True)
            door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            door.bind(str(server.unix_socket))
        else:
            family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
            door = socket.socket(family, socket.SOCK_STREAM)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((server.host, server.port))
    except OSError as error:
        where = server.unix_socket or f"{server.host}:{server.port}"
        raise CannotListen(f"cannot listen on {where}: {error.strerror}") from error
    return door


def address(door: socket.socket) -> str:
    """What a client has to be told."""
    if door.family == socket.AF_UNIX:
        return f"unix:{door.getsockname()}"
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
