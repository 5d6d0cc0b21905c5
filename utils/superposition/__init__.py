"""Superposition: more features than dimensions."""
