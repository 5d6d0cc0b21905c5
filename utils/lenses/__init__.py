"""Reference implementations of chapter 03."""
