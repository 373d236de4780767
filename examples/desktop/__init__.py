"""A small offline desktop app: `python -m examples.desktop`."""
