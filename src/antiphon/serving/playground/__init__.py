"""The page at /: one file without anything from elsewhere, and the few routes that it alone needs."""

from antiphon.serving.playground.playground_routes import pages

__all__ = ["pages"]
