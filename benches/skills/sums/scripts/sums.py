from omni import tool


@tool(read_only=True)
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@tool(read_only=True)
async def add_soon(a: int, b: int) -> dict[str, int]:
    """Add two numbers on the event loop."""
    return {"sum": a + b}
