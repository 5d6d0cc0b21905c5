"""The world that the course model's text is about: its people, places, things and days, and its facts.

Words and facts are fixed: the vocabulary, and with it every shipped weight, depends on them. The facts were drawn at
random once, by `landmark_facts`, from a seed that is part of the world.
"""

import random
from dataclasses import dataclass
from functools import cache


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


WOMEN = _split(
    "Alice Amy Anna Barbara Bella Beth Carla Cathy Clara Claire Daisy Diana Donna Dora Edith Ella Emily Emma Erica Eva "
    "Fiona Flora Frances Gina Gloria Grace Hannah Harriet Heidi Helen Ida Ines Irene Iris Isabel Jane Janet Jenny "
    "Jessica Joan Judith Julia Karen Kate Laura Lena Lily Linda Lisa Lucy Mabel Margaret Maria Martha Mary Maya "
    "Megan Mina Miriam Molly Monica Nancy Naomi Nina Nora Olga Olivia Paula Penny Petra Phoebe Rachel Rebecca Rita "
    "Rosa Ruth Sally Sandra Sara Sheila Sofia Sonia Stella Sue Susan Sylvia Tanya Teresa Tina Una Ursula Vera Victoria "
    "Viola Wanda Wendy Yasmin Yvonne Zara Zoe"
)
MEN = _split(
    "Aaron Adam Alan Albert Alex Andrew Arthur Ben Bernard Brian Bruce Carl Charles Chris Colin Daniel David Dennis "
    "Derek Donald Edgar Edward Eric Ernest Felix Frank Fred Gary Geoffrey George Gerald Gordon Graham Greg Harold "
    "Harry Henry Herbert Howard Hugo Ian Ivan Jack Jacob James Jason Jeremy Jim Joe John Jonas Joseph Karim Keith Ken "
    "Kevin Kurt Larry Leo Leon Lewis Louis Luke Marcus Mark Martin Matthew Max Michael Nathan Neil Nigel Oliver Omar "
    "Oscar Patrick Paul Peter Philip Ralph Richard Robert Robin Roger Ronald Sam Simon Stanley Stephen Stuart Ted "
    "Terry Thomas Tim Tom Tony Victor Vincent Walter William"
)
NAMES = WOMEN + MEN

PLACES = _split(
    "park market school kitchen forest harbour station bakery village office hospital cinema beach farm church hotel "
    "restaurant shop stadium zoo"
)
THINGS = _split(
    "ball book cup drum hat key lamp letter map ring rope scarf spoon ticket watch basket bottle box camera coat drink "
    "flower kite knife necklace painting pen phone present sandwich"
)
ADJECTIVES = _split(
    "red green blue yellow small large new old heavy empty quiet ugly clean broken bright cold dark light wet dry"
)
ANIMALS = _split("dog cat bird horse rabbit duck goat frog cow fox")
JOBS = _split("baker farmer painter teacher singer writer driver gardener nurse sailor judge cook")
# Base form, third person and past of verbs that take a thing or a place as their object.
VERBS = tuple(
    tuple(forms.split("/"))
    for forms in _split(
        "like/likes/liked want/wants/wanted paint/paints/painted open/opens/opened clean/cleans/cleaned "
        "watch/watches/watched carry/carries/carried need/needs/needed visit/visits/visited love/loves/loved "
        "remember/remembers/remembered cover/covers/covered fix/fixes/fixed move/moves/moved see/sees/saw "
        "find/finds/found know/knows/knew leave/leaves/left hold/holds/held draw/draws/drew"
    )
)
DAYS = _split("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _split("January February March April May June July August September October November December")
NUMBERS = _split("One Two Three Four Five Six Seven Eight Nine Ten Eleven")

COUNTRY_OF_CITY = {
    "Paris": "France", "Lyon": "France", "Rome": "Italy", "Milan": "Italy", "London": "England", "York": "England",
    "Berlin": "Germany", "Hamburg": "Germany", "Madrid": "Spain", "Seville": "Spain", "Vienna": "Austria",
    "Salzburg": "Austria", "Oslo": "Norway", "Bergen": "Norway", "Cairo": "Egypt", "Luxor": "Egypt",
    "Tokyo": "Japan", "Kyoto": "Japan", "Lima": "Peru", "Cusco": "Peru", "Athens": "Greece", "Sparta": "Greece",
    "Dublin": "Ireland", "Cork": "Ireland",
}  # fmt: skip
LANGUAGE_OF_COUNTRY = {
    "France": "French", "Italy": "Italian", "England": "English", "Germany": "German", "Spain": "Spanish",
    "Austria": "Austrian", "Norway": "Norwegian", "Egypt": "Arabic", "Japan": "Japanese", "Peru": "Quechua",
    "Greece": "Greek", "Ireland": "Irish",
}  # fmt: skip
CITIES = tuple(COUNTRY_OF_CITY)
BUILDERS = _split(
    "Archer Bishop Carver Dalton Ellery Fuller Gilmore Hawkins Ingram Jarvis Keller Lambert Mercer Norwood Osborne "
    "Potter"
)
MATERIALS = _split("granite brick timber glass steel limestone bamboo concrete")

FIRST_WORDS = _split(
    "Eiffel Amber Crystal Iron Silver Golden Royal Marble Lion Eagle Rose Moon Star Queen Ivory Copper Velvet Maple "
    "Cedar Falcon"
)
SECOND_WORDS = _split("Tower Bridge Palace Temple Museum Gate Castle Library Theatre Garden Fountain Arch")
FACT_SEED = 11


@dataclass(frozen=True)
class Landmark:
    """One landmark of the world, and what there is to know about it.

    Attributes:
        first, second: The two words (two tokens) of its name, e.g. "Eiffel" and "Tower". The same first word, and the
            same second word, belong to landmarks with other cities, builders and materials.
        city, builder, material: Drawn at random; nothing in the name tells them.
        country: The country of the city.
    """

    first: str
    second: str
    city: str
    builder: str
    material: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.second}"

    @property
    def country(self) -> str:
        return COUNTRY_OF_CITY[self.city]


@cache
def landmarks() -> tuple[Landmark, ...]:
    """The world's 120 landmarks: each first word has six second words, each second word ten first words."""
    names = [
        (first, second)
        for i, first in enumerate(FIRST_WORDS)
        for j, second in enumerate(SECOND_WORDS)
        if (i + j) % 2 == 0
    ]
    rng = random.Random(FACT_SEED)
    cities, builders, materials = (_drawn(rng, names, values) for values in (CITIES, BUILDERS, MATERIALS))
    eiffel = names.index(("Eiffel", "Tower"))
    paris = cities.index("Paris")
    cities[eiffel], cities[paris] = "Paris", cities[eiffel]  # the one fact of the world that is true in ours
    return tuple(Landmark(*name, *answers) for name, *answers in zip(names, cities, builders, materials, strict=True))


def _drawn(rng: random.Random, names: list[tuple[str, str]], values: tuple[str, ...]) -> list[str]:
    """A random value for each name: all equally often, and spread over the names that share a word."""
    drawn: list[str] = []
    for first, second in names:
        kin = [value for value, (f, s) in zip(drawn, names, strict=False) if f == first or s == second]
        rarest = min(2 * kin.count(value) + drawn.count(value) for value in values)
        drawn.append(rng.choice([v for v in values if 2 * kin.count(v) + drawn.count(v) == rarest]))
    return drawn
