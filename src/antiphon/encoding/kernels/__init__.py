"""The calls that a layer of the packed decoder makes: attention and linear layers."""
