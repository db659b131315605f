"""GraphQL and HTTP: reads requests, calls services, writes answers; the only user of strawberry."""
