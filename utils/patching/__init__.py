"""Reference implementations of chapter 04."""
