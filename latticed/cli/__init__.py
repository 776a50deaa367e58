"""The command lines: `latticed`, the daemon and its administration; `latticectl`, the client."""
