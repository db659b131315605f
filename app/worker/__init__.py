"""The worker: claims jobs and runs them; knows no GraphQL."""
