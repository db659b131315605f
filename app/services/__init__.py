"""Use cases within one tenant; knows neither GraphQL nor HTTP."""
