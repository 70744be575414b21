"""The embedder as an object: built, saved, opened, adapted, described, compared with another."""
