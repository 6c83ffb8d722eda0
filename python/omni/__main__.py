"""The console script of the wheel, and `python -m omni`."""

import signal
import sys

from omni import _native


def main() -> None:
    """Run the command line of this process, and end it with the exit code."""
    # Rust listens for the interrupt itself. Python's own handler would be chained to it and raise
    # KeyboardInterrupt after a clean shutdown.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _native.main(sys.argv)


if __name__ == "__main__":
    main()
