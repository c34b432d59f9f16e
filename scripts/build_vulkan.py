"""Build llama.cpp's Vulkan backend for the installed llama-cpp-python, as a library that GGML_BACKEND_PATH can name.

usage: python -m scripts.build_vulkan FOLDER        prints the library's path; about eight minutes of processor time

With Mesa's lavapipe it runs on machines without a GPU (GGML_VK_VISIBLE_DEVICES=0). On Debian: apt-get install
mesa-vulkan-drivers libvulkan-dev glslc spirv-headers cmake ninja-build g++. The source is the pinned package's own.
Beside the library lies `shim.so`, which lets lavapipe report the limits of a discrete GPU (`scripts/vulkan_shim.c`).
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from bench.running.program import run_program
from scripts.build_llama import PACKAGE, pinned_version

TOOLS: Final = ("cmake", "ninja", "glslc", "g++")
SHIM_SOURCE: Final = Path(__file__).with_name("vulkan_shim.c")
LIBRARY: Final = "libggml-vulkan.so"
SHIM: Final = "shim.so"
# What a validation layer is told, in headers newer than Debian 12's: left out where they do not know it.
_SETTINGS: Final = (
    "    std::vector<vk::LayerSettingEXT> settings",
    "    vk::LayerSettingsCreateInfoEXT layer_setting_info",
)


def missing_tools() -> list[str]:
    """What must be installed first."""
    headers = [] if Path("/usr/include/vulkan/vulkan.hpp").exists() else ["vulkan.hpp (libvulkan-dev)"]
    return [tool for tool in TOOLS if shutil.which(tool) is None] + headers


def build(folder: Path) -> Path:
    """The library's path; what lies in the folder already is not built again."""
    library = folder / LIBRARY
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            source = pinned_source(Path(name))
            tree, output = source / "vendor" / "llama.cpp", Path(name, "build")
            _leave_out_settings(tree / "ggml" / "src" / "ggml-vulkan" / "ggml-vulkan.cpp")
            _run("cmake", "-S", tree, "-B", output, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 "-DBUILD_SHARED_LIBS=ON", "-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF", "-DGGML_VULKAN=ON")  # fmt: skip
            _run("cmake", "--build", output, "--target", "ggml-vulkan")
            shutil.copy(output / "bin" / LIBRARY, library)
    if not (folder / SHIM).exists():
        _run("gcc", "-shared", "-fPIC", "-O1", "-o", folder / SHIM, SHIM_SOURCE, "-ldl")
    return library


def pinned_source(folder: Path) -> Path:
    """The pinned package's source."""
    version = pinned_version()
    options = ("--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder)
    _run(sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={version}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def _leave_out_settings(path: Path) -> None:
    """Put what needs newer headers, and the structure made of it, behind a question for them."""
    lines = path.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(_SETTINGS[0]))
    last = next(i for i, line in enumerate(lines) if line.startswith(_SETTINGS[1]))
    with_settings = lines[last + 1]
    without = with_settings.replace(", &layer_setting_info", "")
    guarded = ["#ifdef VK_EXT_layer_settings\n", *lines[first : last + 2], "#else\n", without, "#endif\n"]
    path.write_text("".join(lines[:first] + guarded + lines[last + 2 :]))


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


def main() -> None:
    """Build, and print where it lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to build it, and leave it")
    folder = parser.parse_args().folder
    if lacking := missing_tools():
        raise RuntimeError(f"not installed: {', '.join(lacking)}")
    print(build(folder))


if __name__ == "__main__":
    run_program(main)
