"""Where the daemon listens: at the sockets that systemd holds for it, or where its configuration says."""

import socket
from pathlib import Path

from latticed import forks
from latticed.config import ServerConfig
from latticed.errors import LatticedError
from latticed.systemd import listen_sockets


class CannotListen(LatticedError):
    """The address cannot be listened on."""


def open_doors(server: ServerConfig) -> list[socket.socket]:
    """The sockets to listen on; port 0 takes a free one.

    Raises:
        CannotListen: what is configured is taken, or cannot be had.
    """
    doors = listen_sockets() or [_listen(server)]
    for door in doors:
        forks.withhold(door.fileno())
    return doors


def _listen(server: ServerConfig) -> socket.socket:
    path = server.unix_socket
    try:
        return _at_port(server.host, server.port) if path is None else _at_path(path)
    except OSError as error:
        where = path or f"{server.host}:{server.port}"
        raise CannotListen(f"cannot listen on {where}: {error.strerror or error}") from error


def address(listener: socket.socket) -> str:
    """Where a client finds it: `http://127.0.0.1:8700` or `unix:/run/latticed/latticed.sock`."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _at_port(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def _at_path(path: Path) -> socket.socket:
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    return listener


def _make_way(path: Path) -> None:
    """Removes the socket that a daemon has left when it died; what somebody listens on, or is no socket, stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not path.is_socket():
                raise CannotListen(f"cannot listen on {path}: there is a file that is no socket") from None
            path.unlink()
            return
    raise CannotListen(f"cannot listen on {path}: another process does")
