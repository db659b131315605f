"""What an editor asks for while somebody types."""
