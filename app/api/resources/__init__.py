"""GraphQL types, queries and mutations: one module for each resource."""
