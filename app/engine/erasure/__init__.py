"""The end of a person: who it is, where anything of it lies, and how that goes."""
