"""Tells which addresses are of the public Internet; connections to all others are refused."""
import ipaddress
import socket

# What Python's tables lacked in one version or another (https://www.iana.org/assignments/iana-ipv6-special-registry and
# iana-ipv4-special-registry, 2025): protocol assignments, relays of 6to4, documentation, old site-local addresses.
NOT_PUBLIC = [ipaddress.ip_network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "fec0::/10")]
YET_PUBLIC = [ipaddress.ip_address(ip) for ip in ("192.0.0.9", "192.0.0.10")]  # anycast, of those assignments
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddress(OSError):
    """Why a connection is refused; with the same words for each, several addresses of a host make one error."""


def public_socket(address):
    """The socket for a connection to (family, type, protocol, name, socket address).  Raises PrivateAddress.

    The check stands here and not where names are resolved: this is the address that is really connected to, whether it
    comes from the URL, from a redirect, or from a name server that changes its mind.
    """
    family, kind, protocol, _, (ip, *_) = address
    if not is_public(ip):
        raise PrivateAddress("not an address of the public Internet")
    return socket.socket(family, kind, protocol)


def is_public(ip):
    """Whether an IP address, as text, is of the public Internet; what IPv6 addresses carry inside is checked too."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 6:
        nat64 = ipaddress.IPv4Address(int(address) & 0xffffffff) if address in NAT64 else None
        inner = list(filter(None, [nat64, address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]))
        if inner:
            return all(is_public(str(ip)) for ip in inner)
    if any(address in net for net in NOT_PUBLIC):
        return address in YET_PUBLIC
    return address.is_global and not address.is_multicast and not address.is_reserved
