"""The check of a pipeline folder before anything is loaded: its classes, and files that would run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from pydantic import ConfigDict

from fewstep.errors import InputError
from fewstep.storage import Schema, read_json

__all__ = ["check_folder"]

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
CODE = "auto_map"
"""The key of a configuration that names code in the folder."""


class _Object(Schema):
    """Any JSON object: a pipeline's index names its class, and the library and class of each component."""

    model_config = ConfigDict(extra="allow")


def check_folder(path: Path) -> dict[str, Any]:
    """Return the index of a pipeline folder, all of whose classes are diffusers' and transformers'.

    Whatever the installed diffusers would do with it, a folder that brings code is refused: nothing in it is
    imported.

    Raises:
        InputError: if the index cannot be read, names a class of another library or a file of the folder, or a
            component's configuration does.
    """
    index = read_json(path / INDEX, _Object, "the index of the pipeline").model_dump(exclude_unset=True)
    name = index.get("_class_name")
    if not isinstance(name, str):
        _refuse(path, f"its class is {name!r}, and not a name")
    _check_class(path, "the pipeline", "diffusers", name)
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not all(one is None or isinstance(one, str) for one in value):
            raise InputError(f"{str(path / INDEX)!r} is damaged: {part} is {value!r}, and no [library, class].")
        if value[0] is not None and value[1] is not None:
            _check_component(path, part, *value)
    return index


def _check_component(path: Path, part: str, library: str, name: str) -> None:
    if Path(part).name != part or part in ("", ".", ".."):
        raise InputError(f"{str(path / INDEX)!r} is damaged: {part!r} is no name of a component.")
    _check_class(path, part, library, name)
    folder = path / part
    if not folder.is_dir():
        return
    for code in (f"{library}.py", f"{name}.py"):
        if (folder / code).exists():
            _refuse(path, f"{part} brings code, {code}")
    for file in sorted(folder.glob("*config*.json")):
        if CODE in read_json(file, _Object, "the configuration").model_dump():
            _refuse(path, f"{part}/{file.name} names code ({CODE})")


def _check_class(path: Path, part: str, library: str, name: str) -> None:
    """Refuse a class that is not one of diffusers or transformers."""
    import diffusers

    if library in LIBRARIES:
        home = diffusers if library == "diffusers" else _transformers()
        known = name.isidentifier() and hasattr(home, name)
    else:  # Some pipelines of diffusers have components in their own modules.
        home = getattr(diffusers.pipelines, library, None) if library.isidentifier() else None
        known = name.isidentifier() and str(getattr(home, "__name__", "")).startswith("diffusers.pipelines.")
        known = known and hasattr(home, name)
    if not known:
        _refuse(path, f"{part} is {library}.{name}, which is no class of diffusers or transformers as installed here")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:  # Then it has no class, which is said.
        return None
    return transformers


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(
        f"the pipeline {str(path)!r} is not loaded: {reason}. fewstep runs no code of a model folder; load it yourself "
        "and give module:function, if you trust it."
    )
