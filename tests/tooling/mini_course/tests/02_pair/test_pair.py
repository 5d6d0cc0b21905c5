from mini_references import triple

from utils.course.cases import design_of, expect_enough
from utils.course.checking import expect, expect_close


class TestTriple:
    exercise = "triple"

    def test_values(self, answer):
        "three times the input"
        for x in (0, 1.5, -2):
            expect_close(answer(x), 3 * x)


class TestNinefold:
    exercise = "ninefold"

    def test_values(self, answer):
        "nine times the input"
        for x in (0, 1.5, -2):
            expect_close(answer(x), 9 * x)


class TestDoesItGrow:
    exercise = "does_it_grow"

    def test_design(self, answer):
        "enough pairs, each in order, and a verdict that follows"
        design = design_of(answer, {"pairs": "list", "verdict": ("yes", "no")})
        expect_enough(design["pairs"], 3, of="pairs")
        expect(all(a < b for a, b in design["pairs"]), "A pair has its smaller number first.")
        grows = all(triple(a) < triple(b) for a, b in design["pairs"])
        expect(design["verdict"] == ("yes" if grows else "no"), "Your verdict does not follow from your pairs.")
