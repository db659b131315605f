"""Programs that attack a server of their own, and print what happened to it."""
