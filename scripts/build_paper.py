"""Build devices that exist on paper, each with the code by which a real backend puts graphs in order.

usage: python -m scripts.build_paper FOLDER [SOURCE]      prints the libraries' paths; a minute, mostly for the source

No GPU and no toolkit for one is needed: what CUDA and Metal do to a graph before it is laid out (`graph_optimize`) is
plain C++, which is taken from the pinned llama.cpp's source (SOURCE, or what pip downloads) and compiled beside
`scripts/paper_device.cpp`. GGML_BACKEND_PATH names such a library to llama.cpp, which can simulate with it
(`no_alloc`), not compute. Wants g++.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.running.program import existing_folder, run_program
from scripts.build_vulkan import pinned_source

DEVICE: Final = Path(__file__).with_name("paper_device.cpp")
_HEAD: Final = '#include "ggml-backend-impl.h"\n#include "ggml-impl.h"\n#include <algorithm>\n#include <vector>\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A device on paper: llama.cpp's name for it, how it pads, and C++ files from the backend's folder.

    With `products_only` it fetches weights from the host for matrix products alone.
    """

    name: str
    alignment: int
    row: int
    products_only: bool
    folder: str
    files: tuple[str, ...]


CUDA: Final = Paper(name="CUDA", alignment=128, row=512, products_only=False, folder="ggml-cuda", files=())
METAL: Final = Paper(
    name="MTL", alignment=32, row=0, products_only=True, folder="ggml-metal",
    files=("ggml-metal-common.cpp", "ggml-metal-fusion.cpp"),
)  # fmt: skip
PAPERS: Final = (CUDA, METAL)


def library_of(paper: Paper, folder: Path) -> Path:
    """Where its library lies."""
    return folder / f"libggml-paper-{paper.name.lower()}.so"


def build(folder: Path, source: Path | None = None) -> list[Path]:
    """The libraries' paths; what lies in the folder already is not built again."""
    libraries = [library_of(paper, folder) for paper in PAPERS]
    if all(library.exists() for library in libraries):
        return libraries
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        ggml = (source or pinned_source(Path(name)) / "vendor" / "llama.cpp") / "ggml"
        for paper, library in zip(PAPERS, libraries, strict=True):
            own = ggml / "src" / paper.folder
            order = Path(name, f"{paper.name}.cpp")
            order.write_text(_of_cuda(own) if paper is CUDA else _of_metal())
            _compile(paper, ggml, [DEVICE, order, *(own / file for file in paper.files)], library)
    return libraries


def _compile(paper: Paper, ggml: Path, sources: list[Path], library: Path) -> None:
    import llama_cpp  # its libraries have ggml's functions

    own = Path(llama_cpp.__file__).parent / "lib"
    command = [
        "g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED",
        f'-DPAPER_NAME="{paper.name}"', f"-DPAPER_ALIGNMENT={paper.alignment}", f"-DPAPER_ROW={paper.row}",
        f"-DPAPER_PRODUCTS_ONLY={int(paper.products_only)}",
        *(f"-I{path}" for path in (ggml / "include", ggml / "src", ggml / "src" / paper.folder)),
        *sources, f"-L{own}", "-lggml-base", "-o", library,
    ]  # fmt: skip
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


def _of_metal() -> str:
    """What Metal calls before it looks at the graph (`ggml_backend_metal_graph_optimize`)."""
    return _HEAD + (
        '#include "ggml-metal-common.h"\n#include "ggml-metal-fusion.h"\n#include "ggml-metal-device.h"\n'
        'extern "C" ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t, const ggml_tensor *) {'
        " return {}; }  // asked for by kernels alone\n"
        "void paper_graph_optimize(\n"
        "    ggml_backend_t, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {\n"
        "    ggml_metal_fusion_add_alloc_deps(params->user_data, params->add_alloc_dep, graph);\n"
        "    ggml_graph_optimize(graph);\n"
        "}\n"
    )


def _of_cuda(folder: Path) -> str:
    """The functions of CUDA's that look at a graph, as far as they do so by default; the others need its toolkit."""
    main, experts = (folder / name for name in ("ggml-cuda.cu", "topk-moe.cu"))
    header = (folder / "topk-moe.cuh").read_text()
    optimize = _block(main, "static void ggml_backend_cuda_graph_optimize(")
    # Behind this streams of its own are prepared, if GGML_CUDA_GRAPH_OPT asks for them.
    optimize = optimize[: optimize.index("#ifdef USE_CUDA_GRAPH")] + "}\n"
    parts: Iterator[str] = iter((
        _HEAD,
        "struct ggml_backend_cuda_context;\n",
        _struct(header, "ggml_cuda_topk_moe_args"),
        _block(experts, "bool ggml_cuda_should_use_topk_moe("),
        _block(main, "static bool ggml_cuda_topk_moe_fusion("),
        _line(main, "static constexpr int MOE_WEIGHTED_REDUCTION_MAX_EXPERTS"),
        _struct(main.read_text(), "ggml_cuda_moe_weighted_reduction_match"),
        _block(main, "static bool ggml_cuda_match_moe_weighted_reduction("),
        optimize.replace("static void ggml_backend_cuda_graph_optimize", "void paper_graph_optimize"),
    ))  # fmt: skip
    return "\n".join(parts)


def _block(path: Path, start: str) -> str:
    """A function from its first line to the brace that closes it."""
    text = path.read_text()
    first = text.index(start)
    return text[first : text.index("\n}\n", first) + 3]


def _struct(text: str, name: str) -> str:
    found = re.search(rf"^struct {name} \{{.*?^\}};\n", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"no struct {name} in the source")
    return found[0]


def _line(path: Path, start: str) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith(start)) + "\n"


def main() -> None:
    """Build, and print where they lie."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to build them, and leave them")
    parser.add_argument(
        "source", type=existing_folder, nargs="?", metavar="SOURCE", help="the pinned llama.cpp's source"
    )
    args = parser.parse_args()
    print(*build(args.folder, args.source), sep="\n")


if __name__ == "__main__":
    run_program(main)
