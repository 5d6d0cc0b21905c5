"""Decompositions that ship with the course, made by ``utils.spd.make_real``."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates
from utils.spd.training import Decomposition

FOLDER = Path(__file__).with_name("shipped")


def save_decomposition(path: Path, decomposition: Decomposition, about: dict[str, str]) -> None:
    """Write components and gates in half precision, with a few words about them.

    Args:
        path: A file; its folder is made if need be.
        decomposition: Of any matrices.
        about: How it was made: texts by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    modules = {"components": decomposition.components, "gates": decomposition.gates}
    tensors = {
        f"{kind}/{name}/{key}": value.half().contiguous()
        for kind, by_name in modules.items()
        for name, module in by_name.items()
        for key, value in module.state_dict().items()
    }
    save_file(tensors, path, metadata=about)


def load_decomposition(name: str | Path) -> tuple[Decomposition, dict[str, str]]:
    """Read what ``save_decomposition`` wrote.

    Args:
        name: "course-model", "course-model-dear" or "induction", or a file.

    Returns:
        The decomposition, in single precision, without gradients or history, and what was said about it.
    """
    path = name if isinstance(name, Path) else FOLDER / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        about = file.metadata()
    components, gates = {}, {}
    for key in tensors:
        kind, matrix, parameter = key.split("/")
        if parameter == "V":
            components[matrix] = RankOneComponents(
                tensors[key].shape[0], tensors[f"{kind}/{matrix}/U"].shape[1], tensors[key].shape[1]
            )
        elif parameter == "W_in":
            gates[matrix] = ComponentGates(*tensors[key].shape)
    for kind, by_name in (("components", components), ("gates", gates)):
        for matrix, module in by_name.items():
            module.load_state_dict({key: tensors[f"{kind}/{matrix}/{key}"] for key in module.state_dict()})
            module.requires_grad_(False)
    return Decomposition(components, gates, {}), about
