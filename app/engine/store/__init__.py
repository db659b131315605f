"""The files of the lake, their columns and types."""
