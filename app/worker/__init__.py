"""The loop that claims jobs and runs them; knows no GraphQL."""
