"""The `segmentation` command: a thin layer like the API; every rule is in `services`.

A command imports its dependencies when it runs, so that `--help` and PQL commands do not load a server.
"""

from app.cli.main import main

__all__ = ["main"]
