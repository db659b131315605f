"""GraphQL and HTTP: parses requests, calls services, writes responses; the only user of Strawberry."""
