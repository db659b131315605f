"""HTTP, WebSocket, and everything served besides GraphQL."""
