"""The `segmentation` command: thin, like the API; every rule is in `services`.

A command imports what it works with when it is run: nobody waits for a server who asks for `--help` or tries PQL.
"""

from app.cli.main import main

__all__ = ["main"]
