"""One module a verb of the command line: ``arguments(parser)`` and ``run(args) -> dict``."""
