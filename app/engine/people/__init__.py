"""The merged view: who is one person, and what is known of them."""
