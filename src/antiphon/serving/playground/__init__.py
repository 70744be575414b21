"""The page at /: one file without anything from elsewhere, and the few routes that it alone needs."""

from antiphon.serving.playground.routes import pages

__all__ = ["pages"]
