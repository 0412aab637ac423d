"""Compile an exported surrogate for C++: a shared library in a package, which needs libtorch and no Python.

    python examples/cpp/compile.py smoke/model.pt2 program.pt2
    cmake -S examples/cpp -B build -DCMAKE_PREFIX_PATH=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')
    cmake --build build
    build/rollout program.pt2 input.pt 10 frames.pt

`smoke/model.pt2` is what `cliffsteer.export.export` wrote. `input.pt` holds the tuple (frames, parameters), or
(frames,) where the system has no parameters: ``torch.save((frames, parameters), "input.pt")``.
"""

import argparse
from pathlib import Path

import torch


def main(arguments: list[str] | None = None) -> None:
    """Compile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path, help="model.pt2 of an exported surrogate")
    parser.add_argument("package", type=Path, help="where to write")
    options = parser.parse_args(arguments)
    program = torch.export.load(options.exported)
    torch._inductor.aoti_compile_and_package(program, package_path=str(options.package))


if __name__ == "__main__":
    main()
