"""Executes a program that the kernel kills once the daemon is gone.

    python -I -S leash.py PROGRAM [ARGUMENT...]

For programs that talk with the daemon by their own input and output, as an MCP server does. It is asked to end by the
end of its input; this is for one that does not listen, or for a daemon that was killed. What such a program has started
itself is found by `LATTICED_RUN_ID` in its environment (`orphans.py`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(program: list[str]) -> None:
    """Does not return, unless the program cannot be executed."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):  # Not Linux: then the end of its input must do.
        pass
    if os.getppid() == 1:  # It was gone before this was said.
        sys.exit(1)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
