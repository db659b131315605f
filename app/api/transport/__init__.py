"""HTTP, WebSocket, and what is served beside GraphQL."""
