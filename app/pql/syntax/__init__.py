"""Parsers and printers: text and JSON to tree and back."""
