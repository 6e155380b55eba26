"""The program `prorec`: makes sure that the project's own packages are what is imported, then hands over to them.

Knows the names of the packages; imports none of them before. Other projects have a `tasks.py` or a folder `flows`, and
one on PYTHONPATH, or where `python -m` is typed, comes before what is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("flows", "tasks", "prorec_core")


def strangers(root: Path) -> dict[str, Path]:
    """By name of a package of this project what would be imported instead of the one below `root`; runs none of it."""
    found = {}
    for name in PACKAGES:
        spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        file = next((Path(place) for place in places if place), Path("nowhere"))
        if file.resolve() not in {root / name, root / name / "__init__.py"}:
            found[name] = file
    return found


def refuse_strangers(root: Path) -> None:
    """End this process with one line, and status 2, where something else has the name of a package of this project."""
    for name, file in strangers(root).items():
        print(
            f"prorec: {file}: it has the name of a package of this program, '{name}', and is found first. "
            "Take its folder off PYTHONPATH, or give the command in another folder.",
            file=sys.stderr,
        )
        sys.exit(2)


def main() -> None:
    """Run the command line of the packages beside this file."""
    refuse_strangers(Path(__file__).resolve().parent)
    from flows.cli import main as run

    run()


if __name__ == "__main__":
    main()
