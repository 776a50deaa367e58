"""Where the daemon listens: an address of the machine or a path."""

import socket
from pathlib import Path

from latticed.config.settings import ServerConfig
from latticed.errors import LatticedError


class CannotListen(LatticedError):
    """The address cannot be listened on."""


def listen(server: ServerConfig) -> socket.socket:
    """A socket that is bound to where the configuration says.

    Raises:
        CannotListen: it is in use, or not this machine's.
    """
    try:
        if server.unix_socket is not None:
            _make_way(server.unix_socket)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(server.unix_socket))
        else:
            family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((server.host, server.port))
    except OSError as error:
        where = server.unix_socket or f"{server.host}:{server.port}"
        raise CannotListen(f"cannot listen on {where}: {error.strerror}") from error
    return listener


def _make_way(path: Path) -> None:
    """Removes a socket at which nobody listens: it outlives the process that made it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except BlockingIOError:  # Somebody listens, and many want to come in.
            pass


def address_of(listener: socket.socket) -> str:
    """The address as clients are told it."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
