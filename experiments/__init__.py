"""Experiments: what the methods achieve, each a command that prints a table and can write JSON."""
