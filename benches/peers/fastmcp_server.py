"""The peer of a call: the same function, served by FastMCP.

`fastmcp_server.py stdio`, `http PORT` with plain JSON answers, or `many COUNT` with so many tools over
standard input and output.
"""

import sys

from fastmcp import FastMCP

server = FastMCP("sums")


@server.tool
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


def other(number: int) -> None:
    def tool(a: int, b: str = "") -> dict[str, int]:
        return {"sum": a + len(b)}

    server.tool(tool, name=f"tool_{number}", description=f"Do the thing of number {number}.")


match sys.argv[1:]:
    case ["stdio"]:
        server.run("stdio", show_banner=False, log_level="ERROR")
    case ["http", port]:
        server.run(
            "http",
            show_banner=False,
            log_level="ERROR",
            host="127.0.0.1",
            port=int(port),
            path="/mcp",
            json_response=True,
            stateless_http=False,
        )
    case ["many", count]:
        for number in range(int(count) - 1):
            other(number)
        server.run("stdio", show_banner=False, log_level="ERROR")
    case _:
        sys.exit("usage: fastmcp_server.py stdio | http PORT | many COUNT")
