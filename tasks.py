"""The project's chores, one word each: `python tasks.py lint types layers test`.

CI calls this file too, so that what passes here passes there. Without words it does all of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def run(*command: str) -> None:
    """Runs one command in the project's folder, and stops where it fails."""
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=HERE, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def python(*arguments: str) -> None:
    """Runs a module or script with the Python that runs this file."""
    run(sys.executable, *arguments)


def lint() -> None:
    """Style and format."""
    python("-m", "ruff", "check", ".")
    python("-m", "ruff", "format", "--check", ".")


def types() -> None:
    """Types, for each platform that we promise."""
    python("-m", "mypy")
    for platform in ("win32", "darwin"):
        python("-m", "mypy", "--platform", platform, "pseudomount", "parsers")


def layers() -> None:
    """The import contract."""
    run(str(Path(sys.executable).parent / "lint-imports"))


def test() -> None:
    """The tests."""
    python("-m", "pytest")


TASKS: dict[str, Callable[[], None]] = {"lint": lint, "types": types, "layers": layers, "test": test}


def main(words: list[str]) -> None:
    """Runs the chores named, or all."""
    unknown = [word for word in words if word not in TASKS]
    if unknown:
        sys.exit(f"no such task: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    for word in words or TASKS:
        TASKS[word]()


if __name__ == "__main__":
    main(sys.argv[1:])
