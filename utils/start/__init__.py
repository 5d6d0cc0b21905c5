"""Reference implementations of chapter 00."""
