"""Which addresses may be called, and which URLs there are."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.errors import Invalid
from latticed.hooks.addresses import NotAllowed, allowed, is_public, parse_url

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.0.1", "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255",
    "255.255.255.255", "240.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "168.63.129.16", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
    "2001:db8::1", "2001::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1",
    "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::10.0.0.1", "2002:7f00:1::",
    "64:ff9b:1:7f00:0:100:808:808", "64:ff9b:1::8.8.8.8",
    "2002:0a00:0001::1", "2002:a9fe:a9fe::",
]  # fmt: skip
OUTSIDE = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111",
    "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::",
]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_private_is_called_only_if_it_is_allowed(text: str) -> None:
    assert not allowed(text, (), plain=False)
    assert not allowed(text, (), plain=True)
    assert not allowed(text, (ipaddress.ip_network("203.0.114.0/24"),), plain=False)


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_public_is_called_by_https_only(text: str) -> None:
    assert allowed(text, (), plain=False)
    assert not allowed(text, (), plain=True)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"])
def test_an_allowed_network_is_called_by_either_however_its_address_is_written(text: str) -> None:
    assert allowed(text, LOOPBACK, plain=True)
    assert allowed(text, LOOPBACK, plain=False)


@given(st.ip_addresses(v=4))
def test_an_address_that_is_mapped_is_judged_like_the_one_it_stands_for(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    plain = is_public(address)
    for embedded in (
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
    ):
        assert allowed(str(ipaddress.IPv6Address(embedded)), (), plain=False) == plain


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_passes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_private or address.is_loopback or address.is_multicast or address.is_link_local:
        mapped = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour)
        assert mapped or not allowed(str(address), (), plain=False)


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "authority"),
    [
        ("https://example.org", "example.org", 443, b"/", b"example.org"),
        ("https://EXAMPLE.org:8443/a?b=c", "example.org", 8443, b"/a?b=c", b"example.org:8443"),
        ("http://[::1]:80/x", "::1", 80, b"/x", b"[::1]"),
        ("https://bücher.example/ü", "xn--bcher-kva.example", 443, b"/%C3%BC", b"xn--bcher-kva.example"),
        ("https://example.org/%41?x=%20&y=a%2Fb", "example.org", 443, b"/%41?x=%20&y=a%2Fb", b"example.org"),
        ("http://2130706433/", "2130706433", 80, b"/", b"2130706433"),
    ],
)
def test_a_url_is_taken_apart(text: str, host: str, port: int, path: bytes, authority: bytes) -> None:
    target = parse_url(text)
    assert (target.host, target.port, target.path, target.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    "text",
    ["", "example.org", "ftp://example.org/", "https://", "https:///x", "https://user:pass@example.org/",
     "https://user@example.org/", "https://example.org/#part", "https://exa mple.org/", "https://example.org/a b",
     "https://example.org\\@127.0.0.1/", "https://example.org/\r\nx: y", "https://example.org:0/",
     "https://example.org:99999/", "https://[::1/", "https://[zz]/", "https://exa$mple.org/", "file:///etc/passwd",
     "https://" + "a" * 300 + ".org/", "https://\x00/"],
)  # fmt: skip
def test_what_is_no_url_to_be_called_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_url(text)


def test_a_redirect_leads_where_it_says() -> None:
    here = parse_url("https://example.org/a/b?c")
    assert here.redirected("/x") == parse_url("https://example.org/x")
    assert here.redirected("d") == parse_url("https://example.org/a/d")
    assert here.redirected("//other.example/x") == parse_url("https://other.example/x")
    assert parse_url("http://example.org/").redirected("https://example.org/").scheme == "https"
    for bad in ("http://example.org/", "ftp://example.org/", "https://u:p@example.org/", "https://[", "javascript:x"):
        with pytest.raises(NotAllowed):
            here.redirected(bad)
