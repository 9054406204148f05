"""YAML files as frozen dataclasses: inheritance, overrides, and every key and type checked."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from d3_ros.errors import DataError, one_line

T = TypeVar("T")
INHERITS = "inherits"  # a key of a YAML file: the file, beside it, whose values it changes


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping of a file: what it inherits, its own keys over that, `key.subkey=value` on top.

    A mapping is merged key by key; anything else replaces what was inherited.

    Raises:
        DataError: a file cannot be read or is no mapping, or an override is not key=value.
    """
    content = _read_inherited(path, ())
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise DataError(f"{text!r}: write an override as key=value with a key of {path}")
        try:
            change: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise DataError(f"{text!r} is not YAML: {one_line(error)}") from error
        for part in reversed(key.split(".")):
            change = {part: change}
        content = _merged(content, change)
    return content


def _read_inherited(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a mapping of keys to values")
    parent = content.pop(INHERITS, None)
    if parent is None:
        return content
    parent_path = path.parent / str(parent)
    if parent_path.resolve() in (*children, path.resolve()):
        raise DataError(f"{path}: {INHERITS} {parent} goes in a circle")
    return _merged(_read_inherited(parent_path, (*children, path.resolve())), content)


def _merged(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def build(kind: type[T], content: object, where: str) -> T:
    """`content` as the dataclass `kind`, checked key by key; `where` begins the errors.

    Fields may be bool, int, float, str, Literal, tuples, dataclasses, each also `| None`.

    Raises:
        DataError: a key is unknown (the nearest known one is suggested) or missing, a value has
            the wrong type, or the dataclass itself refuses it.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{where} must be a mapping of keys to values")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
            raise DataError(f"{where}: unknown key {key!r}; {hint}")
    for name in names:
        if name not in content:
            raise DataError(f"{where}: {name!r} is missing")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], content[name], f"{where}: {name}") for name in names}
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _value(hint, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise DataError(f"{where} must be one of {', '.join(arguments)}, not {value!r}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if hint is float and type(value) in (int, str):
        with suppress(ValueError):  # YAML 1.1 takes 1e-3, without a point, for a text
            return float(value)
    if type(value) is not hint:
        raise DataError(f"{where} must be {hint.__name__}, not {value!r}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where} must be a list")
    if arguments[1:] == (Ellipsis,):
        return tuple(_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise DataError(f"{where} must have {len(arguments)} entries")
    return tuple(_value(hint, v, where) for hint, v in zip(arguments, value, strict=True))
