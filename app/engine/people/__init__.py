"""The merged view: identity resolution and merged attributes."""
