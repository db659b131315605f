"""What lists of the API share: connections and filters."""
