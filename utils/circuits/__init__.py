"""Reference implementations of chapter 05."""
