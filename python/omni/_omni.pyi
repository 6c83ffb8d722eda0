"""The Rust half, as Python sees it. Its twin is the `_omni` module in the Rust sources."""

__version__: str

def main(argv: list[str]) -> int:
    """Run the command line; `argv` includes the program's name. Returns the exit code."""

def log(level: str, call_id: str | None, text: str) -> None:
    """Write one line to the program's log: `debug`, `info`, `warning` or `error`."""
