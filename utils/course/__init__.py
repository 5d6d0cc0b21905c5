"""The machinery of the course; a learner's notebook needs only these names."""

from utils.course.notebook import check, hint, outcome, predict, reference, start

__all__ = ["check", "hint", "outcome", "predict", "reference", "start"]
