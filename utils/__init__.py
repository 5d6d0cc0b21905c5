"""The course's code: reference implementations by chapter, and the machinery around them (``utils.course``)."""
