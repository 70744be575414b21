"""Rows of files, BEIR folders, sources of texts, training pairs and their mixtures."""
