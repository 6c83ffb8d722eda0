"""What the benchmarks call."""

import time

from omni import Context, tool


@tool(read_only=True)
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@tool(read_only=True)
async def add_soon(a: int, b: int) -> dict[str, int]:
    """Add two numbers on the event loop."""
    return {"sum": a + b}


@tool(read_only=True)
def echo(text: str) -> str:
    """Give a text back."""
    return text


@tool(read_only=True)
def sleeps(ctx: Context) -> str:
    """Sleep until it is called off."""
    while not ctx.cancelled:
        time.sleep(0.05)
    return "slept"


@tool(read_only=True)
def spins(ctx: Context) -> str:
    """Count until it is called off."""
    while not ctx.cancelled:
        sum(range(1000))
    return "counted"
