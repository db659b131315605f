"""Text and JSON to tree and back."""
