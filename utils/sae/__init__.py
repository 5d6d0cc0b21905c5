"""Sparse autoencoders, their variants, and reading what they find (chapter 08)."""
