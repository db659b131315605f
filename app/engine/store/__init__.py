"""The files of the lake: formats, columns and types."""
