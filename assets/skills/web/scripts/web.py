"""Fetching public web pages."""

import codecs
import json
import re
import warnings

from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning
from markdownify import MarkdownConverter

from omni import Context, Failed, tool

from .fetcher import Fetcher, Page

_LARGEST_HTML = 2 * 1024 * 1024
_NOISE = (
    "script",
    "style",
    "noscript",
    "template",
    "nav",
    "svg",
    "iframe",
    "form",
    "button",
    "input",
    "select",
    "object",
)
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,5}=\s{0,5}["']?([A-Za-z0-9_-]{1,40})""", re.IGNORECASE)

fetcher = Fetcher()
"""What fetches. No argument of the tool reaches its settings."""


@tool(
    read_only=True,
    timeout=90,
    examples=["fetch https://example.com", "read this web page", "what does this URL say?"],
)
def fetch(url: str, ctx: Context, limit: int = 20_000) -> str:
    """Get a web page as Markdown."""
    page = fetcher.get(url, ctx)
    text = _readable(page)
    note = "" if page.whole else "\n[the page is larger than what was fetched]"
    if len(text) > limit > 0:
        text, note = text[:limit], f"\n[{len(text) - limit} more characters; raise `limit`]"
    head = f"{page.url}\n\n" if page.url != url else ""
    return f"{head}{text}{note}"


def _readable(page: Page) -> str:
    kind = page.kind
    if kind in ("text/html", "application/xhtml+xml") or (not kind and page.body.lstrip()[:1] == b"<"):
        return _markdown(_decoded(page))
    if kind == "application/json" or kind.endswith("+json"):
        return _json(_decoded(page))
    textual = kind.startswith("text/") or kind.endswith("+xml") or kind in ("application/xml", "application/javascript")
    if (textual or not kind) and b"\0" not in page.body[:8192]:
        return _decoded(page)
    raise Failed(f"`{page.url}` is {kind or 'binary'} of {len(page.body)} bytes, not text")


def _decoded(page: Page) -> str:
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    names = [name for mark, name in marks if page.body.startswith(mark)]
    names += [page.charset] if page.charset else []
    declared = _META.search(page.body[:4096])
    names += [declared[1].decode("ascii")] if declared else []
    for name in [*names, "utf-8"]:
        try:
            # Only encodings of text: there are others, `zip` for one.
            if codecs.lookup(name)._is_text_encoding:
                return page.body.decode(name, "replace")
        except (LookupError, ValueError):
            continue
    return page.body.decode("utf-8", "replace")


def _json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def _markdown(html: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        soup = BeautifulSoup(html[:_LARGEST_HTML], "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for noise in soup.find_all([*_NOISE, "title"]):
        noise.decompose()
    main = soup.find("main") or soup.find("article") or soup.body or soup
    try:
        text = MarkdownConverter(heading_style="ATX", bullets="-", strip=["img"]).convert_soup(main)
    except RecursionError:
        # Nested deeper than any page made by hand.
        text = "\n".join(main.stripped_strings)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"# {title}\n\n{text}" if title and not text.startswith(f"# {title}") else text
