"""The peer of a call: the same function, served by the official Python SDK for MCP.

`sdk.py stdio`, or `sdk.py http PORT` with plain JSON answers and connections that stay open, which
is the fastest this server can do over HTTP.
"""

import sys

from mcp.server import MCPServer

server = MCPServer("sums", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool()
async def add_soon(a: int, b: int) -> dict[str, int]:
    """Add two numbers on the event loop."""
    return {"sum": a + b}


match sys.argv[1:]:
    case ["stdio"]:
        server.run("stdio")
    case ["http", port]:
        server.run("streamable-http", host="127.0.0.1", port=int(port), json_response=True)
    case _:
        sys.exit("usage: sdk.py stdio | sdk.py http PORT")
