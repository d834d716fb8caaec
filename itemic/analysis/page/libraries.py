"""Other people's JavaScript, read from the Python packages that carry it, with the licences it comes under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from itemic.errors import ConfigError, missing_extra

WHO, EXTRA = "the page of an analysis", "analysis"
EXPORTS = re.compile(r"export\s*\{([^{}]*)\}\s*;?")
NOTICES = re.compile(r"/\*!.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Library:
    """A library within the page.

    Attributes:
        name, version: of what the page uses.
        package: the Python package that carries it, with its version.
        does: what it does here.
        script: its JavaScript, fit to stand in a ``<script>`` element.
        licence: of the package, its full text.
        notices: what its JavaScript says of its own parts' authors and licences.
    """

    name: str
    version: str
    package: str
    does: str
    script: str
    licence: str
    notices: str


def data_grid() -> Library:
    """DataTables, from itables: a module that leaves ``globalThis.DataTable`` behind.

    Raises:
        ConfigError: itables is missing, or carries something else than it used to.
    """
    text = _read("itables", "html/dt_bundle.js")
    exports = EXPORTS.search(text)
    named = re.search(r"([\w$]+)\s+as\s+default\b", exports[1]) if exports else None
    version = re.search(r"DataTables (\d+\.\d+\.\d+)\n", text)
    if exports is None or named is None or version is None:
        raise _other("itables")
    script = f"{text[: exports.start()]}globalThis.DataTable={named[1]};{text[exports.end() :]}"
    return _library("DataTables", version[1], "itables", "the table of cases: sorting, paging", script)


def plots() -> Library:
    """BokehJS, from bokeh: a classic script that leaves ``Bokeh`` behind.

    Raises:
        ConfigError: bokeh is missing, or carries something else than it used to.
    """
    text = _read("bokeh", "server/static/js/bokeh.min.js")
    if "Bokeh" not in text:
        raise _other("bokeh")
    version = distribution("bokeh").version
    return _library("BokehJS", version, "bokeh", "the charts and what they say under a pointer", text)


def embedded(script: str) -> str:
    """JavaScript that means the same, and neither ends nor confuses the ``<script>`` element around it.

    What is replaced can only stand in strings and regular expressions, which read ``\\x3c`` as ``<``.
    """
    plain = script.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\\0")
    return re.sub(r"<(?=!--|/?script)", r"\\x3c", plain, flags=re.IGNORECASE)


def _library(name: str, version: str, package: str, does: str, script: str) -> Library:
    held = distribution(package)
    licence = "\n\n".join(
        file.read_text(encoding="utf-8").strip()
        for file in held.files or []
        if "LICEN" in file.name.upper() and ".dist-info" in str(file)
    )
    notices = "\n\n".join(dict.fromkeys(_plain(found) for found in NOTICES.findall(script)))
    return Library(name, version, f"{package} {held.version}", does, embedded(script), licence, notices)


def _plain(comment: str) -> str:
    lines = comment.removesuffix("*/").lstrip("/*!").splitlines()
    told = [line.strip().strip("*").strip() for line in lines]
    return "\n".join(line for line in told if line and line not in ("(", ")", "!", "(*!"))


def need(package: str) -> Path:
    """The folder of an installed package, which isn't imported for that.

    Raises:
        ConfigError: it isn't installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(WHO, package, EXTRA)
    return Path(spec.submodule_search_locations[0])


def _read(package: str, path: str) -> str:
    folder = need(package)
    try:
        distribution(package)
        return (folder / path).read_text(encoding="utf-8")
    except (OSError, PackageNotFoundError) as error:
        raise _other(package) from error


def _other(package: str) -> ConfigError:
    return ConfigError(
        f"the installed {package} doesn't carry the JavaScript that {WHO} is made with",
        f'Install the version it was tried with: `pip install "itemic[{EXTRA}]"`.',
    )
