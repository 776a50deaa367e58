"""One HTTP exchange with the daemon: an answer's document, or an exception of `latticed.errors`."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import httpx2

from latticed.errors import ERRORS, Busy, Internal, Invalid, LatticedError, NotFound, Unavailable, Unreadable

CONNECT_SECONDS = 5.0
"""How long a connection may take to open."""
ANSWER_SECONDS = 30.0
"""How long the daemon may be silent before an answer is given up."""

_BY_STATUS: dict[int, type[LatticedError]] = {
    **{cls.status: cls for cls in ERRORS.values()},
    400: Invalid,
    502: Unavailable,
    504: Unavailable,
}

Params = Mapping[str, Any]
Address = str | Callable[[], str]
"""A daemon's address, or what says where it is now, since it may come back elsewhere."""


def path(*segments: str) -> str:
    """Path segments → an absolute path; what is in a segment stays in it.

    Raises:
        NotFound: a segment that would mean another path, such as `..`.
    """
    for segment in segments:
        if segment in ("", ".", ".."):
            raise NotFound(f"there is nothing called {segment!r}")
    try:
        return "/" + "/".join(quote(segment, safe="") for segment in segments)
    except UnicodeEncodeError as error:
        raise NotFound(f"there is nothing called {segments[-1]!r}") from error


def problem(response: httpx2.Response, origin: str) -> LatticedError:
    """An answer of `origin` that is not a success → the exception it stands for, by its `code`, else by its status."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    status = response.status_code
    known = ERRORS.get(str(document.get("code")))
    cls = known or _BY_STATUS.get(status, Internal)
    if cls is Invalid and status == Unreadable.status:
        cls = Unreadable
    detail = document.get("detail") or document.get("title")
    if not isinstance(detail, str):
        detail = None
    if known is None:
        said = f": {detail}" if detail else "; is that a latticed daemon?"
        detail = f"{origin} answered {status} {response.reason_phrase}".rstrip() + said
    if issubclass(cls, Busy):
        return cls(detail, retry_after=_whole_seconds(response.headers.get("retry-after")))
    if issubclass(cls, Invalid):
        errors = document.get("errors")
        return cls(detail, errors=errors if isinstance(errors, list) else None)
    return cls(detail)


def _whole_seconds(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 1


class Transport:
    """A pool of connections to one daemon, with one token.

    Args:
        where: the daemon's address, such as `http://127.0.0.1:8700` or `unix:/run/latticed/latticed.sock`.
        token: sent as `Authorization: Bearer`; None sends nothing.
        answer_seconds: how long the daemon may be silent before an answer is given up.

    Raises:
        Invalid: the address is not an http or https address, and no Unix socket's.
    """

    def __init__(self, where: Address, token: str | None, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._where: Callable[[], str] = where if callable(where) else lambda: where
        self.answer_seconds = answer_seconds
        self._headers = headers = {"Accept": "application/json", "User-Agent": "latticed-client"}
        if token:
            if not (token.isascii() and token.isprintable()):
                raise Invalid("the token holds characters that no token has; was it copied whole?")
            headers["Authorization"] = f"Bearer {token}"
        self._open(self._where())

    def _open(self, url: str) -> None:
        self.url = url.rstrip("/")
        socket = _socket_path(self.url)
        try:
            parsed = httpx2.URL(self.url if socket is None else "http://localhost")
        except httpx2.InvalidURL as error:
            raise _not_an_address(url) from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise _not_an_address(url)
        # Reading the machine's certificates takes longer than most commands: plain HTTP gets a context without any.
        verify: ssl.SSLContext | bool = True
        if parsed.scheme == "http":
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx2.Client(
            base_url=parsed,
            headers=self._headers,
            verify=verify,
            transport=None if socket is None else httpx2.HTTPTransport(verify=verify, uds=socket),
            timeout=httpx2.Timeout(self.answer_seconds, connect=CONNECT_SECONDS),
            # A proxy in the environment is for the world outside, not for this machine's own daemon.
            trust_env=parsed.host not in ("127.0.0.1", "::1", "localhost"),
        )

    def look_again(self) -> None:
        """Turns to where the daemon is now; while nothing says so, to where it was."""
        with suppress(LatticedError):
            if (url := self._where()).rstrip("/") != self.url:
                self.close()
                self._open(url)

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()

    def request(
        self,
        method: str,
        where: str,
        *,
        body: Any = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        longer_seconds: float = 0.0,
    ) -> Any:
        """Sends one request → the answer's document, None if it has none.

        Args:
            body: sent as JSON, if not None.
            params: the query; None values are left out.
            longer_seconds: how much longer than usual the answer may take.

        Raises:
            LatticedError: the daemon refused, as its problem document says.
            Invalid: the request cannot be said in JSON or in a header.
            Unavailable: there was no answer.
            Internal: the answer is not JSON.
        """
        timeout = httpx2.Timeout(self.answer_seconds + longer_seconds, connect=CONNECT_SECONDS)
        try:
            response = self._http.request(
                method, where, json=body, params=_given(params), headers=headers, timeout=timeout
            )
        except httpx2.TransportError as error:
            raise self._unreachable(error, method) from error
        except ValueError as error:  # not UTF-8, not a finite number, not ASCII in a header
            raise Invalid(f"this cannot be sent: {error}") from error
        if not response.is_success:
            raise problem(response, self.url)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise Internal(f"{self.url} did not answer with JSON; is that a latticed daemon?") from error

    def lines(self, where: str, *, params: Params | None = None) -> Iterator[Any]:
        """The documents of an answer that has one a line, as they come.

        Raises:
            LatticedError: the daemon refused.
            Unavailable: it could not be reached, or the answer broke off.
        """
        timeout = httpx2.Timeout(self.answer_seconds, connect=CONNECT_SECONDS)
        try:
            with self._http.stream("GET", where, params=_given(params), timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise problem(response, self.url)
                rest = b""
                for chunk in response.iter_bytes():
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from map(json.loads, whole)
        except httpx2.TransportError as error:
            raise self._unreachable(error, "GET") from error
        except ValueError as error:
            raise Internal(f"{self.url} did not answer with JSON lines; is that a latticed daemon?") from error

    @contextmanager
    def stream(
        self, where: str, *, params: Params | None, headers: Mapping[str, str], silence_seconds: float
    ) -> Iterator[Iterator[str] | None]:
        """Opens an event stream → its text as it comes, or None if the daemon says that nothing follows (204).

        Raises:
            LatticedError: the daemon refused.
            Unavailable: it could not be reached, or the connection broke or was silent for `silence_seconds`.
        """
        try:
            with self._http.stream(
                "GET",
                where,
                params=_given(params),
                headers={"Accept": "text/event-stream", "Cache-Control": "no-store", **headers},
                timeout=httpx2.Timeout(silence_seconds, connect=CONNECT_SECONDS),
            ) as response:
                if response.status_code == httpx2.codes.NO_CONTENT:
                    yield None
                    return
                if not response.is_success:
                    response.read()
                    raise problem(response, self.url)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise Internal(f"{self.url} did not answer with an event stream; is that a latticed daemon?")
                response.encoding = "utf-8"  # an event stream is always UTF-8 (WHATWG HTML, 9.2.5)
                yield response.iter_text()
        except httpx2.TransportError as error:
            raise self._unreachable(error, "GET") from error

    def _unreachable(self, error: httpx2.TransportError, method: str) -> Unavailable:
        """What went wrong on the wire, with what to look at."""
        check = "Is the daemon running (latticed serve), and is this its address?"
        if isinstance(error, httpx2.ConnectTimeout):
            return Unavailable(f"no answer from {self.url} within {CONNECT_SECONDS:g} s. {check}")
        if isinstance(error, httpx2.ConnectError):
            return Unavailable(f"cannot reach {self.url} ({_reason(error)}). {check}")
        if isinstance(error, httpx2.TimeoutException):
            what = f"{self.url} was silent for too long"
        else:
            what = f"the connection to {self.url} broke before the answer was there"
        if method == "GET":
            return Unavailable(f"{what}; try again")
        return Unavailable(f"{what}; look whether it took effect before you send it again")


def _socket_path(url: str) -> str | None:
    """The path of a Unix socket's address: `unix:/path`, or `unix:///path` as others write it."""
    scheme, _, path = url.partition(":")
    if scheme != "unix":
        return None
    if not path:
        raise _not_an_address(url)
    return path.removeprefix("//")


def _not_an_address(url: str) -> Invalid:
    return Invalid(
        f"{url!r} is not a daemon's address; one looks like http://127.0.0.1:8700 or unix:/run/latticed/latticed.sock"
    )


def _given(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _reason(error: BaseException) -> str:
    """The operating system's word for it, as far down the causes as there is one."""
    reason = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return reason[:1].lower() + reason[1:]
