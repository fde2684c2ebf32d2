"""datasets/crawl/addresses.py: what is of the public Internet, in all the forms that an address takes."""
import pytest

from datasets.crawl import addresses


@pytest.mark.parametrize("ip, public", [
    ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
    ("2002:808:808::", True),
    ("127.0.0.1", False), ("127.9.9.9", False), ("0.0.0.0", False), ("10.1.2.3", False), ("172.31.0.1", False),
    ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("192.0.2.1", False),
    ("198.18.0.1", False), ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False),
    ("::1", False), ("::", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False),
    ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ("2002:c0a8:101::", False), ("::127.0.0.1", False),
    # https://www.iana.org/assignments/iana-ipv4-special-registry, iana-ipv6-special-registry and what was before them.
    ("192.0.0.1", False), ("192.0.0.8", False), ("192.0.0.9", True), ("192.0.0.10", True), ("192.0.0.170", False),
    ("192.0.0.192", False), ("192.0.1.1", True), ("192.88.99.1", False), ("192.88.98.1", True), ("192.31.196.1", True),
    ("192.175.48.1", True), ("198.51.100.7", False), ("203.0.113.7", False), ("fec0::1", False), ("feff::1", False),
    ("fec0::1%1", False), ("3fff::1", False), ("3fff:fff:ffff::1", False), ("3fff:1000::1", True), ("5f00::1", False),
    ("64:ff9b:1::808:808", False), ("100::1", False), ("100:0:0:1::1", False), ("2001:2::1", False),
    ("2001:db8::1", False), ("2620:4f:8000::1", True), ("4000::1", False), ("e000::1", False),
    ("::ffff:192.0.0.8", False), ("::ffff:192.88.99.1", False), ("2002:c058:6301::", False),
    ("2001:0:c058:6301::f7f7:f7f7", False), ("64:ff9b::c000:8", False)])
def test_only_addresses_of_the_public_internet_are_public(ip, public):
    assert addresses.is_public(ip) is public
