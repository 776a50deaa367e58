"""Measures latticed over HTTP, side by side with a peer: `python -m bench` (see README.md here)."""
