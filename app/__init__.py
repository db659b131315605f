"""The Segmentation Gateway: GraphQL over people segments."""
