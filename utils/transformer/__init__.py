"""Reference implementations of chapter 02."""
