"""Model sizes, weights and loading."""
