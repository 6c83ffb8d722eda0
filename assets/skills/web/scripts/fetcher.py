"""HTTP that reaches public addresses only."""

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from omni import Context, Failed, Retry
from omni.errors import ToolCancelled

_AGENT = "omni"
_MOST_HOPS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Tell whether an address is one that anybody on the internet could mean.

    IPv6 addresses that carry an IPv4 address inside (mapped, NAT64, 6to4, Teredo) are refused altogether,
    since what they lead to is decided by somebody else's translation.
    """
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address in _UNICAST and not any(address in network for network in _TRANSLATED)


# Said here too, because releases of Python differ in which of these they call global.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_TRANSLATED = [ipaddress.IPv6Network(text) for text in ("2002::/16", "2001::/23")]


def look_up(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Page:
    """What came back."""

    url: str
    kind: str
    """Media type in small letters, without parameters."""
    charset: str | None
    body: bytes
    whole: bool


@dataclass
class Fetcher:
    """Fetches pages; the fields are for tests."""

    allowed: Callable[[Address], bool] = is_public
    look_up: Callable[[str, int], list[str]] = look_up
    seconds: float = 45.0
    largest: int = 5 * 1024 * 1024

    def get(self, url: str, ctx: Context) -> Page:
        """Follow redirects by hand, each hop checked like the first."""
        with _Watch(ctx, self.seconds) as watch:
            for _ in range(_MOST_HOPS + 1):
                page, following = self._hop(url, watch)
                if following is None:
                    return page
                url = urljoin(url, following)
        raise Failed(f"`{url}` is the end of more than {_MOST_HOPS} redirects")

    def _hop(self, url: str, watch: "_Watch") -> tuple[Page, str | None]:
        scheme, host, port, target = _parts(url)
        connection = http.client.HTTPConnection(host, port, timeout=self.seconds)
        with watch.guard(url):
            connection.sock = self._connect(scheme, host, port, watch)
            try:
                default = port == (443 if scheme == "https" else 80)
                shown = f"[{host}]" if ":" in host else host
                connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
                connection.putheader("Host", shown if default else f"{shown}:{port}")
                connection.putheader("User-Agent", _AGENT)
                connection.putheader("Accept", "text/markdown, text/html;q=0.9, text/*;q=0.8, application/json;q=0.8")
                connection.putheader("Accept-Encoding", "gzip")
                connection.putheader("Connection", "close")
                connection.endheaders()
                response = connection.getresponse()
                following = response.headers.get("Location") if response.status in _REDIRECTS else None
                if following is not None:
                    return Page(url, "", None, b"", True), following
                body, whole = self._body(response, url)
                if response.status >= 400:
                    raise Failed(f"`{url}` answered {response.status} {response.reason}")
                kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
                return Page(url, kind, response.headers.get_content_charset(), body, whole), None
            finally:
                connection.close()

    def _connect(self, scheme: str, host: str, port: int, watch: "_Watch") -> socket.socket:
        """Connect to an address that was checked, never to a name, which could mean another by now."""
        try:
            found = self.look_up(host, port)
        except (OSError, UnicodeError) as error:
            raise Failed(f"the name `{host}` cannot be resolved: {error}") from None
        good = [text for text in found if self.allowed(ipaddress.ip_address(text))]
        if not good:
            raise Failed(f"`{host}` is no public address ({', '.join(found) or 'none'}), so it is not fetched")
        last: OSError | None = None
        for address in good[:3]:
            try:
                plain = socket.create_connection((address, port), timeout=watch.left())
            except OSError as error:
                last = error
                continue
            watch.take(plain)
            if scheme == "http":
                return plain
            secure = _tls().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            watch.take(secure)
            secure.do_handshake()
            return secure
        raise last or OSError("no address")

    def _body(self, response: http.client.HTTPResponse, url: str) -> tuple[bytes, bool]:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Failed(f"`{url}` is compressed as {encoding}, which was not asked for")
        inflate = None if encoding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 16)
        body = bytearray()
        while chunk := response.read1(65536):
            room = self.largest + 1 - len(body)
            body += inflate.decompress(chunk, room) if inflate else chunk[:room]
            if len(body) > self.largest:
                return bytes(body[: self.largest]), False
        return bytes(body), not response.length


class _Watch:
    """Ends a fetch when its time is up or its call is cancelled, whatever the socket waits for."""

    def __init__(self, ctx: Context, seconds: float) -> None:
        self._ctx = ctx
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._done = threading.Event()
        self._socket: socket.socket | None = None
        self._fired = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def left(self) -> float:
        return max(0.01, self._end - time.monotonic())

    def take(self, opened: socket.socket) -> None:
        self._socket = opened

    @contextlib.contextmanager
    def guard(self, url: str) -> Iterator[None]:
        """Turn what goes wrong on the network into a sentence."""
        try:
            yield
            if self._fired:
                # To the reader it looked like the end of the page.
                raise OSError("cut off")
        except (OSError, http.client.HTTPException, zlib.error) as error:
            if self._ctx.cancelled:
                raise ToolCancelled from None
            if self._fired or time.monotonic() >= self._end:
                raise Failed(f"`{url}` did not answer in full within {self._seconds:g} s") from None
            raise Failed(f"`{url}` cannot be fetched: {error or type(error).__name__}") from None

    def _run(self) -> None:
        while not self._done.wait(0.1):
            if self._ctx.cancelled or time.monotonic() >= self._end:
                self._fired = True
                opened = self._socket
                if opened is not None:
                    with contextlib.suppress(OSError):
                        # On the plain socket: a TLS one would say goodbye first, and wait for an answer.
                        socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _parts(url: str) -> tuple[str, str, int, str]:
    """Take a URL apart into scheme, host, port and the target of the request."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise Retry(f"`{url}` is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Retry(f"`{url}` is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise Failed("a URL with a user name or password in it is not fetched")
    try:
        host = parts.hostname.encode("idna").decode("ascii") if ":" not in parts.hostname else parts.hostname
    except UnicodeError as error:
        raise Retry(f"`{parts.hostname}` is no host name: {error}") from None
    if any(char <= " " for char in host):
        raise Retry(f"`{parts.hostname}` is no host name")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]") if parts.query else ""
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path + query


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # An interpreter that was built elsewhere may not know where this system keeps its certificates.
    if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_FILE" not in os.environ:
        for file in _CERTIFICATES:
            if os.path.exists(file):
                context.load_verify_locations(file)
                break
    return context
