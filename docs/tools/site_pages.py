"""What the site has beside the files in docs/: pages made of README.md and its neighbours, and the pages of the API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import itemic

ROOT = Path(__file__).resolve().parents[2]
NEIGHBOURS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ORDER = (
    "data",
    "sid",
    "model",
    "tasks",
    "training",
    "evaluate",
    "teacher",
    "rl",
    "profile",
    "analysis",
    "recipe",
    "pipeline",
    "errors",
)  # of the way through


def on_config(config: Any) -> Any:
    """The rooms stand in the navigation."""
    for entry in config.nav:
        if "API" in entry:
            entry["API"] = [{room: f"api/{room}.md"} for room in rooms()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that nobody wrote into docs/."""
    for name, page in NEIGHBOURS.items():
        text = inside((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for room, homes in rooms().items():
        parts = [
            f"::: {home}\n    options: {{heading: itemic.{name}, toc_label: {name}}}" for name, home in homes
        ]
        text = "\n\n".join([f"# {room}", *parts])
        files.append(File.generated(config, f"api/{room}.md", content=text))
    return files


def inside(text: str) -> str:
    """A document of the root with its links as the site has them."""
    text = re.sub(r"\]\(docs/", "](", text)
    for name, page in NEIGHBOURS.items():
        text = text.replace(f"]({name})", f"]({page})")
    return text


def rooms() -> dict[str, list[tuple[str, str]]]:
    """Room → the public objects that live in it, each with its full name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in itemic.__all__:
        module = itemic._HOMES[name]
        found.setdefault(module.split(".")[1], []).append((name, f"{module}.{name}"))
    return {room: found[room] for room in sorted(found, key=ORDER.index)}
