"""The address policy: which addresses may be called, in every notation, and after every result of a lookup."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.relay.egress.address_policy import (
    AddressPolicy,
    CheckedResolver,
    ForbiddenAddressError,
    Network,
    permitted,
)
from services.relay.egress.hosts import HostPorts
from services.relay.egress.http.request import Origin


def guard(allowed: Sequence[str] = (), hosts: Sequence[str] = ()) -> AddressPolicy:
    return AddressPolicy([ipaddress.ip_network(text) for text in allowed], HostPorts(hosts))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:8080/x?y=http://example.com",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://198.18.0.1/",
        "http://224.0.0.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://[::]/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b:1::10.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:c0a8:101::1]/",
        "http://[2001:0:7f00:1::1]/",
        "http://[2001:0:808:808:0:0:80ff:fffe]/",
        "http://[2001:4860::5efe:10.0.0.1]/",
        "http://[2001:db8::1]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.1../",
        "http://127.0.0.1.../",
        "http://example.com../",
        "http://.example.com/",
        "http://a..b/",
        "http://./",
        "http://\uff3b169.254.169.254x/",
        "http://\uff3b0x7f.1x/",
        "http://\U0001ccf1\U0001ccf2\U0001ccf7.\U0001ccf0.\U0001ccf0.\U0001ccf1/",
        "http://168.63.129.16/",
        "http://192.0.0.8/",
        "http://192.0.0.192/opc/v2/",
        "http://192.0.0.255/",
        "http://192.88.99.1/",
        "http://[::ffff:192.0.0.192]/",
        "http://[3fff::1]/",
        "http://[3fff:fff:ffff::1]/",
        "http://0/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://example.0x7f/",
        "http://①②⑦.⓪.⓪.①/",
        "http://\uff11\uff12\uff17\u3002\uff10\u3002\uff10\u3002\uff11/",
        "http://127%2e0.0.1/",
        "http://user@8.8.8.8/",
        "http://user:password@example.com/",
        "http://example.com@127.0.0.1/",
        "http:///path",
        "http://[::1/",
        "http://example.com:99999/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "javascript:alert(1)",
        "",
    ],
)
def test_refused_by_the_address_itself(url: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="destination"):
        guard().check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://EXAMPLE.com./",
        "http://8.8.8.8:8080/x@y",
        "https://[2606:4700::1111]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::8.8.8.8]/",
        "http://[2002:808:808::]/",
        "https://münchen.de/",
        "https://0x7f.example.com/",
        "https://1e100.net/",
        "http://192.0.0.9/",
        "http://192.0.0.10/",
        "http://168.63.129.17/",
        "http://[3fff:1000::1]/",
    ],
)
def test_accepted_by_the_address_itself(url: str) -> None:
    guard().check_url(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://EXAMPLE.com./x", "example.com."),
        ("http://[2606:4700::1111]:81/", "2606:4700::1111"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
    ],
)
def test_the_checked_address_is_the_called_one(url: str, host: str) -> None:
    assert guard().check_url(url).host == host


@pytest.mark.parametrize("host", [".svc.cluster.local", "a..svc.cluster.local", "web.."])
def test_a_host_with_an_empty_label_is_not_an_allowed_host(host: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="empty label"):
        guard(hosts=["web", "*.svc.cluster.local"]).check_url(f"http://{host}/")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1/", "127.0.0.0/8"),
        ("http://[::ffff:127.0.0.1]/", "127.0.0.0/8"),
        ("http://[64:ff9b::10.0.0.1]/", "10.0.0.0/8"),
        ("http://[fd00::1]/", "fd00::/8"),
    ],
)
def test_an_address_that_the_operator_allows_is_accepted(url: str, allowed: str) -> None:
    guard([allowed]).check_url(url)
    with pytest.raises(ForbiddenAddressError, match="RELAY_ALLOW_PRIVATE"):
        guard(["192.168.0.0/16", "fc00:1::/32"]).check_url(url)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("web", True), ("WEB.", True), ("a.svc.cluster.local", True), ("svc.cluster.local", False), ("xweb", False),
     ("web.example.com", False), ("evilsvc.cluster.local", False)],
)  # fmt: skip
def test_hosts_that_the_operator_allows_may_resolve_to_any_address(name: str, passes: bool) -> None:
    guarding = guard(hosts=["web", "*.svc.cluster.local"])
    assert guarding.allows(guarding.check_url(f"http://{name}/")) is passes
    with pytest.raises(ForbiddenAddressError, match="RELAY_ALLOW_HOSTS"):
        guarding.check_resolved(name, ["10.0.0.1"])


@pytest.mark.parametrize(
    ("host", "port", "passes"),
    [
        ("api", 8004, True), ("API.", 8004, True), ("api", 8000, False), ("connect", 8083, False),
        ("127.0.0.1", 8004, True), ("127.0.0.1", 8005, False), ("::1", 8004, True), ("::1", 8005, False),
        ("a.svc.cluster.local", 80, True), ("a.svc.cluster.local", 81, False), ("fd00::1", 1, True), ("web", 1, True),
    ],
)  # fmt: skip
def test_a_host_may_be_allowed_for_one_port(host: str, port: int, passes: bool) -> None:
    hosts = ["api:8004", "127.0.0.1:8004", "[::1]:8004", "*.svc.cluster.local:80", "fd00::1", "web"]
    assert guard(hosts=hosts).allows(Origin("http", host, port)) is passes


def test_an_address_that_is_allowed_for_one_port_is_refused_at_another() -> None:
    guarding = guard(hosts=["127.0.0.1:8004"])
    guarding.check_url("http://127.0.0.1:8004/callbacks/relay")
    for url in ("http://127.0.0.1:8005/", "http://127.0.0.1/", "http://127.0.0.2:8004/"):
        with pytest.raises(ForbiddenAddressError, match="RELAY_ALLOW_HOSTS"):
            guarding.check_url(url)


def test_a_name_with_one_private_address_of_several_is_refused() -> None:
    with pytest.raises(ForbiddenAddressError) as caught:
        guard().check_resolved("example.com", ["8.8.8.8", "10.9.8.7"])
    assert "example.com" in str(caught.value)
    # A publisher does not see the addresses of names in a private network.
    assert "10.9.8.7" not in str(caught.value)


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_judged_as_ipv4(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    inside = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ]
    networks: list[Network] = [ipaddress.ip_network("10.0.0.0/8")]
    for allowed in ([], networks):
        assert {permitted(outer, allowed) for outer in inside} == {permitted(address, allowed)}


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_numbers_that_represent_an_address_are_refused(address: ipaddress.IPv4Address, form: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        guard().check_url(f"http://{form.format(int(address))}/")


@given(st.text(max_size=40))
@example("\U00016a60")  # a digit to Python, and a letter to IDNA
def test_any_text_is_judged_without_an_error(text: str) -> None:
    try:
        host = guard().check_url(f"http://{text}/").host
    except ForbiddenAddressError:
        return
    # An accepted host is in the form in which it is looked up, which is not a number.
    assert host
    assert host.isascii()
    assert not host.replace(".", "").isdigit() or ipaddress.ip_address(host).is_global


class Answers:
    """Resolves with the prepared answers in order."""

    def __init__(self, *answers: str) -> None:
        self.left = list(answers)

    async def __call__(self, _name: str) -> Sequence[str]:
        return [self.left.pop(0)]


def test_a_name_whose_address_becomes_private_is_refused_then() -> None:
    async def scenario() -> None:
        answers = Answers("8.8.8.8", "169.254.169.254", "8.8.4.4")
        resolve = CheckedResolver(guard(), answers)
        # There is one lookup, and the connection uses the checked address.
        assert await resolve("rebinding.example") == ["8.8.8.8"]
        assert len(answers.left) == 2
        with pytest.raises(ForbiddenAddressError, match=r"rebinding\.example leads to an address that is not public"):
            await resolve("rebinding.example")

    asyncio.run(scenario())


def test_an_address_in_place_of_a_name_is_checked_at_the_connection() -> None:
    resolve = CheckedResolver(guard(), Answers("10.0.0.1"))
    with pytest.raises(ForbiddenAddressError, match=r"10\.0\.0\.1 is not a public address"):
        asyncio.run(resolve("10.0.0.1"))
