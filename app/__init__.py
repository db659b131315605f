"""The Segmentation Gateway: a GraphQL API over segmentation resources."""
