"""Fetching pages from a real server, and refusing to go where it must not."""

import gzip
import ipaddress
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from omni import Failed, Retry, kernel, testing
from omni.errors import ToolCancelled

Use = Callable[..., Any]
SKILL = Path(__file__).parents[2] / "assets/skills/web"
HTML = b"""<!doctype html><html><head><title>A Title</title><style>p{}</style></head><body>
<nav>menu</nav><script>alert(1)</script><h1>Head</h1><p>Some <b>bold</b> text and a
<a href="/x">link</a>.</p><ul><li>one</li></ul><table><tr><th>a</th></tr><tr><td>1</td></tr></table></body></html>"""


class Pages(BaseHTTPRequestHandler):
    """What the server at the other end says."""

    protocol_version = "HTTP/1.1"
    seen: list[str]
    gate: threading.Event

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.headers['Host']}{self.path}")  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        getattr(self, path.strip("/").replace("-", "_") or "html", self.missing)()

    def say(self, body: bytes, kind: str = "text/plain", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def missing(self) -> None:
        self.say(b"nothing", status=404)

    def html(self) -> None:
        self.say(HTML, "text/html; charset=utf-8")

    def json(self) -> None:
        self.say(b'{ "a": [1, 2] }', "application/json")

    def latin(self) -> None:
        self.say(b"caf\xe9", "text/plain; charset=iso-8859-1")

    def meta(self) -> None:
        self.say(b'<meta charset="iso-8859-1"><p>caf\xe9</p>', "text/html")

    def zipped(self) -> None:
        self.say(gzip.compress(b"unzipped"), Content_Encoding="gzip")

    def bomb(self) -> None:
        self.say(gzip.compress(b"\x61" * 50_000_000), Content_Encoding="gzip")

    def odd_charset(self) -> None:
        self.say(b"x", "text/plain; charset=zip")

    def image(self) -> None:
        self.say(b"\x89PNG\0", "image/png")

    def unnamed(self) -> None:
        self.say(b"\0\1\2", "")

    def deep(self) -> None:
        self.say(b"<div>" * 5000 + b"deep" + b"</div>" * 5000, "text/html")

    def relative(self) -> None:
        self.say(b"", status=302, Location="/json")

    def round(self) -> None:
        self.say(b"", status=301, Location="/round")

    def inside(self) -> None:
        self.say(b"", status=302, Location=f"http://127.0.0.1:{self.server.server_address[1]}/json")

    def file(self) -> None:
        self.say(b"", status=302, Location="file:///etc/passwd")

    def slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        while not self.server.gate.wait(0.05):  # type: ignore[attr-defined]
            self.wfile.write(b"drop ")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("", 0), Pages)
    server.seen, server.gate = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def site(server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A public name for the server, whose address alone is taken for a public one."""
    web = testing.load(SKILL)
    fetcher = testing.load(SKILL, "scripts/fetcher.py")
    names = {"example.org": ["127.0.0.2"], "xn--mnchen-3ya.example": ["127.0.0.2"]}
    monkeypatch.setattr(web.fetcher, "look_up", lambda host, port: names.get(host) or fetcher.look_up(host, port))
    monkeypatch.setattr(web.fetcher, "allowed", lambda ip: str(ip) == "127.0.0.2" or fetcher.is_public(ip))
    return f"http://example.org:{server.server_address[1]}"


def test_a_page_becomes_markdown(use: Use, site: str) -> None:
    text = use("web.fetch", url=f"{site}/")
    assert text.startswith("# A Title\n\n")
    assert "# Head\n\nSome **bold** text and a\n[link](/x)." in text
    assert "- one" in text
    assert "| a |" in text
    assert "menu" not in text
    assert "alert" not in text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/json", '{"a":[1,2]}'),
        ("/latin", "café"),
        ("/meta", "café"),
        ("/zipped", "unzipped"),
        ("/odd-charset", "x"),
        ("/deep", "deep"),
    ],
)
def test_other_text(use: Use, site: str, path: str, text: str) -> None:
    assert use("web.fetch", url=site + path) == text


def test_what_is_no_text(use: Use, site: str) -> None:
    with pytest.raises(Failed, match="is image/png of 5 bytes"):
        use("web.fetch", url=f"{site}/image")
    with pytest.raises(Failed, match="is binary of 3 bytes"):
        use("web.fetch", url=f"{site}/unnamed")
    with pytest.raises(Failed, match="answered 404 Not Found"):
        use("web.fetch", url=f"{site}/nowhere")


def test_a_compressed_bomb_and_a_limit(use: Use, site: str) -> None:
    text = use("web.fetch", url=f"{site}/bomb", limit=10_000_000)
    assert text.endswith("\n[the page is larger than what was fetched]")
    assert len(text) < 5 * 1024 * 1024 + 100
    assert use("web.fetch", url=f"{site}/json", limit=3) == '{"a\n[8 more characters; raise `limit`]'


def test_the_request_says_whom_it_asks(use: Use, site: str, server: Any) -> None:
    port = server.server_address[1]
    use("web.fetch", url=f"{site}/json?q=a b&x=%20ü#part")
    use("web.fetch", url=f"http://münchen.example:{port}/json")
    assert server.seen == [f"example.org:{port}/json?q=a%20b&x=%20%C3%BC", f"xn--mnchen-3ya.example:{port}/json"]


def test_redirects(use: Use, site: str, server: Any) -> None:
    assert use("web.fetch", url=f"{site}/relative") == f'{site}/json\n\n{{"a":[1,2]}}'
    with pytest.raises(Failed, match="more than 5 redirects"):
        use("web.fetch", url=f"{site}/round")
    assert len(server.seen) == 2 + 6
    with pytest.raises(Retry, match="no http or https"):
        use("web.fetch", url=f"{site}/file")


def test_a_redirect_to_this_machine(use: Use, site: str, server: Any) -> None:
    with pytest.raises(Failed, match=r"`127\.0\.0\.1` is no public address"):
        use("web.fetch", url=f"{site}/inside")
    assert len(server.seen) == 1


def test_the_address_that_was_checked_is_the_one_connected_to(
    use: Use, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = testing.load(SKILL)
    answers = iter([["127.0.0.2"], ["169.254.169.254"]])
    monkeypatch.setattr(web.fetcher, "look_up", lambda *_: next(answers))
    assert use("web.fetch", url=f"{site}/json") == '{"a":[1,2]}'
    with pytest.raises(Failed, match="no public address"):
        use("web.fetch", url=f"{site}/json")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://240.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::808:808]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[ff02::1]/",
        "http://[::]/",
    ],
)
def test_private_addresses_in_every_dress(use: Use, url: str) -> None:
    with pytest.raises(Failed, match=r"is no public address|cannot be resolved"):
        use("web.fetch", url=url)


PRIVATE = (
    *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1"),
    *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001:0:7f00:1::"),
    *("fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "ff0e::1", "2001:db8::1", "fec0::1", "4000::1"),
)


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not testing.load(SKILL, "scripts/fetcher.py").is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])
def test_public_addresses(text: str) -> None:
    assert testing.load(SKILL, "scripts/fetcher.py").is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "file:///etc/passwd", "example.org", "http://", "http://a:b:c/", "http://x:99999/"]
)
def test_what_is_no_web_address(use: Use, url: str) -> None:
    with pytest.raises(Retry, match="is no"):
        use("web.fetch", url=url)


def test_a_password_in_the_address(use: Use) -> None:
    with pytest.raises(Failed, match="user name or password"):
        use("web.fetch", url="http://ada:secret@example.org/")


def test_a_page_that_never_ends(use: Use, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing.load(SKILL).fetcher, "seconds", 0.4)
    with pytest.raises(Failed, match=r"did not answer in full within 0\.4 s"):
        use("web.fetch", url=f"{site}/slow")


def test_cancelled(site: str, server: Any, workspace: Path) -> None:
    ctx: Any = testing.context(workspace)

    def cancel() -> None:
        while not server.seen:
            threading.Event().wait(0.01)
        ctx._native.is_cancelled = True

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(ToolCancelled):
        testing.call(testing.load(SKILL).fetch, ctx, url=f"{site}/slow")
    thread.join()


def test_the_tool_offers_no_way_around() -> None:
    tools = kernel.describe("web", str(SKILL), "scripts/web.py")["tools"]
    assert [list(tool["input"]["properties"]) for tool in tools] == [["url", "limit"]]
