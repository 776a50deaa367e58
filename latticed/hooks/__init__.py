"""Hooks: who is asked, and how each sort is asked."""
