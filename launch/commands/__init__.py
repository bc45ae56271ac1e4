"""One module a command: `Options`, `EXAMPLE` and `run`."""
