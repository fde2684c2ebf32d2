"""What an answer of HTTP comes to: a body, unpacked up to a limit, or a Failure with a name that is counted."""
import asyncio
import contextlib
import socket
import time
import zlib
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp import helpers

from datasets.crawl.addresses import PrivateAddress

NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class Failure(Exception):
    """Why there is no page: `outcome` is counted; if `passing`, a try after `wait` seconds may succeed."""

    def __init__(self, outcome, *, passing=False, wait=0.0):
        super().__init__(outcome)
        self.outcome, self.passing, self.wait = outcome, passing, wait


@contextlib.contextmanager
def named_failures(invalid="invalid"):
    """Turns what aiohttp, yarl and the system raise into Failures."""
    try:
        yield
    except (Failure, asyncio.CancelledError):
        raise
    except asyncio.TimeoutError:
        raise Failure("timeout", passing=True)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
        raise Failure("tls")
    except aiohttp.ClientConnectorDNSError as error:
        unknown = getattr(error.os_error, "errno", None) in NO_SUCH_HOST
        raise Failure("no_such_host" if unknown else "name_server", passing=not unknown)
    except aiohttp.ClientConnectorError as error:
        private = isinstance(error.os_error, PrivateAddress)
        raise Failure("private_address" if private else "connection", passing=not private)
    except aiohttp.ClientPayloadError:
        raise Failure("cut_off", passing=True)
    except zlib.error:
        raise Failure("other_encoding")
    except aiohttp.ClientResponseError:
        raise Failure("bad_answer")
    except (aiohttp.InvalidURL, ValueError):
        raise Failure(invalid)
    except (aiohttp.ClientError, OSError):
        raise Failure("connection", passing=True)
    except Exception as error:  # a page that a library cannot bear must not end a run of millions
        raise Failure(f"error_{type(error).__name__}", passing=True)


async def read_body(response, max_bytes, *, cut):
    """The body, decoded; `cut`: a longer one is cut off instead of refused.  Raises Failure."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise Failure("other_encoding")
    plain, decoder, body, received = encoding in ("", "identity"), None, bytearray(), 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        if plain:
            body += chunk
        elif decoder is None:
            decoder = _decoder(encoding, chunk)
        while chunk and not plain:
            body += decoder.decompress(chunk, max(1, max_bytes + 1 - len(body)))  # at most one byte too many
            chunk = decoder.unused_data
            if not chunk.startswith(b"\x1f\x8b"):  # else gzip again: files packed one by one may stand in a row
                break
            decoder = _decoder("gzip", chunk)
        if len(body) > max_bytes or received > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise Failure("too_big")
    if decoder is not None and not decoder.eof:
        raise Failure("cut_off", passing=True)
    return bytes(body)


def _decoder(encoding, start):
    if encoding == "deflate":  # some servers leave out the zlib wrapping
        wrapped = len(start) > 1 and start[0] & 15 == 8 and (start[0] << 8 | start[1]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def seconds_to_wait(retry_after):
    """Seconds of a Retry-After header, 0 where it says nothing."""
    for read in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
            return max(0.0, read(retry_after))
    return 0.0


def charset(content_type):
    """The charset that a Content-Type header names, or ""."""
    return helpers.parse_mimetype(content_type).parameters.get("charset", "").strip("'")
