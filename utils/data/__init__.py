"""Seeded corpora and task generators."""
