"""Grades strangers' code: what is written in a submission runs in a worker process, and never in the one that decides.

``world`` shuts the worker in, ``view`` gives it a course without the answers, ``zygote`` starts it quickly, and
``worker`` defines the learner's functions and answers calls. They talk over ``peer``, in the ``encoding`` alone.
``grader`` puts the checks on the other end, and ``batch`` and ``report`` are what an instructor uses.
"""
