"""Reference implementations of chapter 01."""
