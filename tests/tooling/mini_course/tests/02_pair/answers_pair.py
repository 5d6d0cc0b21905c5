from utils.course.catalogue import right, wrong


@wrong("does_it_grow", "A pair has its smaller number first: yours are the other way round.")
def backwards():
    return {"pairs": [(1, 0), (2, 1), (5, -2)], "verdict": "no"}


@right("does_it_grow")
def many_pairs():
    return {"pairs": [(k, k + 1) for k in range(9)], "verdict": "yes"}
