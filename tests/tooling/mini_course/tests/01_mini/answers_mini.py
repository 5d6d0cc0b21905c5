import mini_references
from mini_references import double

from utils.course.catalogue import right, wrong


@wrong("double", "You square the number. Twice x is x + x.")
def squared(x):
    return x * x


@wrong("double", "Your result is cut off from the graph, so no gradient reaches x.")
def detached(x):
    return 2 * x.detach()


@wrong("double", "You change x itself.")
def in_place(x):
    x *= 2
    return x


@wrong("double", "This works for vectors of length five only.")
def five_only(x):
    return 2 * x[:5] if x.dim() == 1 else x


@right("double")
def added(x):
    return x + x


@wrong("quadruple", "You double once.")
def double_once(x):
    return double(x)


@wrong("scaffolded", "You forget that n can be other than one.")
def once(x, n):
    return double(x + 1)


@wrong("Scale", "Your bias is missing: it is zero when the module is new, and only then does it not matter.")
class NoBias(mini_references.Scale):
    def forward(self, x):
        return self.w * x
