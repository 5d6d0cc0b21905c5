"""Chapter 10: a feature of your own, by a protocol that could have said no."""
