"""Which addresses may be called from here: the world's, and of the private ones those that the configuration allows."""

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from latticed.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EMBEDDING = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))
"""Networks that stand for an IPv4 address in their last 32 bits, beside the mapped ones: NAT64 (RFC 6052), compatible
and translated addresses. They lead to where that address leads."""
_INSIDE = tuple(
    ipaddress.ip_network(text)
    for text in ("168.63.129.16/32", "100.64.0.0/10", "198.18.0.0/15", "192.0.0.0/24", "0.0.0.0/8", "240.0.0.0/4",
                 "fec0::/10", "2001::/23", "100::/64", "5f00::/16", "64:ff9b:1::/48")
)  # fmt: skip
"""What is not for the world although Python's tables, in one version or another, call it global: a cloud's own
services, carriers' and benchmarks' networks, site-local addresses, tunnels, and NAT64 within a site (RFC 8215), where
nobody outside knows which bits are the address that it leads to."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE = "/%:@!$&'()*+,;=~-._"


class NotAllowed(Exception):
    """An address that may not be called; the text names what was asked for, never what it resolved to."""


def effective(text: str) -> Address:
    """The address that a textual one leads to: of an IPv6 address that stands for an IPv4 one, that."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := address.ipv4_mapped or address.sixtofour) is not None:
            return inner
        if any(address in network for network in _EMBEDDING) and int(address) > 1:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address is out in the world and one host's."""
    inside = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return address.is_global and not inside and not any(address in network for network in _INSIDE)


def allowed(text: str, private: Sequence[Network], *, plain: bool) -> bool:
    """Whether this address may be called: what is public by https only (`plain` is http), what is in one of the
    `private` networks by either."""
    address = effective(text)
    return any(address in network for network in private) or (not plain and is_public(address))


class Target(NamedTuple):
    """A URL, taken apart for sending."""

    scheme: str
    host: str
    port: int
    path: bytes

    @property
    def origin(self) -> tuple[str, str, int]:
        """What one connection serves."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> bytes:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    def redirected(self, location: str) -> "Target":
        """Where a redirect leads.

        Raises:
            NotAllowed: from https to http, or to no URL at all.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        here = f"{self.scheme}://{host}:{self.port}{self.path.decode('ascii')}"
        try:
            there = parse_url(urljoin(here, location))
        except (Invalid, ValueError):
            raise NotAllowed("it redirects to something that is no URL to be called") from None
        if self.scheme == "https" and there.scheme != "https":
            raise NotAllowed("it redirects from https to http")
        return there


def parse_url(text: str) -> Target:
    """A webhook's URL, taken apart.

    Raises:
        Invalid: it is no http or https URL with a host, or holds a user, a password, or a fragment.
    """
    if re.search(r"[\x00-\x20\x7f\\]", text):
        raise Invalid("a URL holds no spaces, backslashes or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Invalid(f"this is no URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise Invalid("a URL is https://HOST/PATH, or http:// to an address that webhooks.allow_private names")
    if "@" in parts.netloc:
        raise Invalid("a URL holds no user and no password; the receiver checks the signature")
    if parts.fragment:
        raise Invalid("a URL that is called has no fragment")
    try:
        if ":" in host:
            host = str(ipaddress.IPv6Address(host))
        else:
            host = host.encode("idna").decode("ascii").lower()
            if not re.fullmatch(r"[a-z0-9._-]{1,253}", host):
                raise Invalid(f"{host!r} is no host's name")
    except ValueError:
        raise Invalid("its host is no name and no address") from None
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else "")
    return Target(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], path.encode("ascii"))
