"""From tree to checked core: names, types, operators."""
