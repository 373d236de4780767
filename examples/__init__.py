"""Programs that embed drift-edge; each runs with the built-in pair, and is run by the tests."""
