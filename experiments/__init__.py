"""The experiments: what the two papers claim, one TOML file a question, with its records and scores beside it."""
