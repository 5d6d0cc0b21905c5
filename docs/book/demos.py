"""The book's live demos: where each stands, and the files that its page loads."""

import base64
import gzip
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import export
import pages

from utils.course import paths
from utils.data.corpus import vocabulary
from utils.models.digits_cnn import digits_data

HERE = Path(__file__).parent / "demos"
# The demo that a chapter opens with.
OF_CHAPTER = {
    "01_classical_attribution": "classifier",
    "02_transformer_from_scratch": "attention",
    "03_lenses": "lens",
    "04_patching": "patching",
    "06_superposition": "superposition",
    "08_sparse_autoencoders": "steering",
}
PLAIN = {"superposition"}  # needs no library
LIBRARY = "onnxruntime-web@1.30.0"
LIBRARY_FILES = {"library": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
NPM = paths.ROOT / "build/npm"


def opening(chapter: str, with_library: bool) -> str:
    """What a chapter's page says about its demo, with the demo itself; empty if there is none."""
    name = OF_CHAPTER.get(chapter)
    if not name or not (name in PLAIN or with_library):
        return ""
    links = pages.Links()
    links.up = "../"
    text = pages.PART.sub(links.part, (HERE / f"{name}.md").read_text(encoding="utf-8"))
    return text.replace("```{demo}\n```", _place(name)) + "\n"


def listed(with_library: bool) -> str:
    """A list of the demos, each a link to the chapter that opens with it."""
    rows = []
    for chapter, name in OF_CHAPTER.items():
        if name in PLAIN or with_library:
            title = (HERE / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("## Try it: ")
            rows.append(f"- [{title[0].upper()}{title[1:]}]({chapter}/index.md)")
    return "Networks run in these pages, for you to try:\n\n" + "\n".join(rows) + "\n"


def _place(name: str) -> str:
    needed = ["demo", *([] if name in PLAIN else ["network"]), name]
    scripts = "\n".join(f'<script defer src="../demos/{script}.js"></script>' for script in needed)
    return f"""```{{raw}} html
<section class="demo" id="demo-{name}" aria-label="Demo: {name}"></section>
<noscript>This demo needs JavaScript; the page reads without it.</noscript>
{scripts}
<script>
addEventListener("DOMContentLoaded", () => Demo.{name}.open(document.getElementById("demo-{name}")));
</script>
```"""


def npm_package(package: str) -> Path | None:
    """The archive of a package, `name@version`, fetched by npm if need be; None if it can't be had."""
    archive = NPM / f"{package.replace('@', '-')}.tgz"
    if not archive.exists():
        NPM.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if not npm or subprocess.run([npm, "pack", package], cwd=NPM, capture_output=True).returncode:
            return None
    return archive


def library() -> Path | None:
    """Where the library lies that runs networks in a browser; None, and a sentence, if it can't be had."""
    archive = npm_package(LIBRARY)
    if not archive:
        print(f"The npm package {LIBRARY} can't be had, so the book is built without the demos that need it.")
    return archive


def write(folder: Path, archive: Path | None) -> None:
    """Put the demos' scripts, the library and what it runs into the built book."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for script in HERE.glob("*.js"):
        shutil.copy(script, folder)
    if archive:
        with tarfile.open(archive) as files:
            dist = {name: files.extractfile(f"package/dist/{file}").read() for name, file in LIBRARY_FILES.items()}
        _write_packed(folder / "runtime.js", dist)
        _write_packed(folder / "course-model.js", course_model())
        _write_packed(folder / "dictionary.js", dictionary_files())
        _write_packed(folder / "digits.js", digits())


def course_model() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.write_course_model(path)
        return {"model": path.read_bytes(), "vocabulary": json.dumps(vocabulary()).encode()}


def digits(n_each: int = 2) -> dict[str, bytes]:
    """The network that reads digits, and some images of each that it was not trained on."""
    data = digits_data()
    rows = [row for digit in range(10) for row in (data.test_labels == digit).nonzero()[:n_each, 0].tolist()]
    images = [
        {"digit": data.test_labels[row].item(), "image": (16 * data.test_images[row]).int().flatten().tolist()}
        for row in rows
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.write_digits_cnn(path)
        return {"model": path.read_bytes(), "examples": json.dumps(images).encode()}


def dictionary_files() -> dict[str, bytes]:
    """The course model's dictionary, and what the page says of each latent."""
    sae, info = export.described_dictionary()
    arrays = {name: getattr(sae, name).numpy().tobytes() for name in ("W_enc", "b_enc", "W_dec")}
    return arrays | {"info": json.dumps(info).encode()}


def _write_packed(path: Path, files: dict[str, bytes]) -> None:
    """Files as a script, which a page can load from a folder, where it may load nothing else."""
    packed = {name: base64.b64encode(gzip.compress(data, mtime=0)).decode() for name, data in files.items()}
    path.write_text(f"Object.assign(Demo.files, {json.dumps(packed)});\n", encoding="utf-8")
