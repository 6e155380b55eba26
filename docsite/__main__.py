"""`python -m docsite [FOLDER]`: build the site, with warnings as errors, and check its links.

Knows the steps; knows nothing of their insides.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
from pathlib import Path

from docsite import links, sources


def main() -> int:
    """Build into a folder, by default docs/html, which is whole or as it was; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docsite", description="Build the documentation as a site.")
    parser.add_argument("folder", nargs="?", type=Path, default=sources.DOCS / "html", help="by default docs/html")
    target: Path = parser.parse_args().folder
    if target.exists() and any(target.iterdir()) and not (target / "objects.inv").is_file():
        print(f"docs: {target}: it holds something else than a site. Name another folder.", file=sys.stderr)
        return 2
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError as error:
        print(f"docs: {error.name} is not installed. Install the extra `docs`: make setup", file=sys.stderr)
        return 1
    gc.disable()  # Trees of pages live until the end: to look through them takes a quarter of the time.
    with tempfile.TemporaryDirectory(prefix="prorec-docs-") as scratch:
        gathered, built = Path(scratch) / "pages", Path(scratch) / "html"
        gathered.mkdir()
        try:
            sources.gather(gathered)
        except sources.BrokenPageError as error:
            print(f"docs: {error}", file=sys.stderr)
            return 1
        strict = ["--fail-on-warning", "--keep-going", "--quiet"]
        where = ["--conf-dir", str(Path(__file__).parent), "--doctree-dir", str(Path(scratch) / "trees")]
        if status := int(build_main([*strict, *where, str(gathered), str(built)])):
            return status
        if found := list(links.problems(built)):
            print(*(f"docs: {problem}" for problem in found), sep="\n", file=sys.stderr)
            return 1
        put(built, target)
    print(f"Open {target / 'index.html'}")
    return 0


def put(built: Path, target: Path) -> None:
    """Have a site in the place of another: copied beside it, perhaps from another disk, then renamed."""
    beside = target.with_name(f".{target.name}.begun")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        shutil.move(built, beside / "new")
        if target.exists():
            target.rename(beside / "old")
        (beside / "new").rename(target)
    finally:
        if not target.exists() and (beside / "old").exists():
            (beside / "old").rename(target)
        shutil.rmtree(beside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
