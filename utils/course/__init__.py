"""The machinery of the course; a learner's notebook needs only these three names."""

from utils.course.notebook import check, hint, reference

__all__ = ["check", "hint", "reference"]
