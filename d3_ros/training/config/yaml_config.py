"""YAML files as frozen dataclasses. Every key, type and range is checked.

The fields of the dataclass are the keys of the file. A field without a default is required. The
range of a number stands beside its type: `batch: Annotated[int, Range(1, 4096)]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from d3_ros.errors import DataError, one_line
from d3_ros.training.config.recipes import find_config

T = TypeVar("T")
INHERITS = "inherits"  # key of a YAML file: the file whose values it changes
MAX_BYTES = 100_000
MAX_FILES = 20  # that inherit from each other
MAX_MERGED_KEYS = 1000  # by YAML's `<<`, whose copies multiply in PyYAML before 6.0.4
# PyYAML lets Python's own errors through: for dates and numbers that do not exist, for tags with
# values that do not fit, and for brackets nested too deeply.
YAML_ERRORS = (
    yaml.YAMLError,
    ValueError,  # UnicodeDecodeError is one
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class Range:
    """A number's limits, both included. NaN and infinity are never in range."""

    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        low, high = (f"{int(x):,}" if x == int(x) else f"{x:g}" for x in (self.low, self.high))
        return f"{low} to {high}"


Count = Annotated[int, Range(1, 1e9)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Side = Annotated[int, Range(1, 16384)]  # pixels
LearningRate = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 0.999999)]  # of a moving average
ClipNorm = Annotated[float, Range(1e-9, 1e9)]
Weight = Annotated[float, Range(0, 1e6)]  # of a loss


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a file, over that of the file it inherits from, under `key.subkey=value`.

    Mappings are merged key by key. Any other value replaces the inherited one.

    Raises:
        DataError: a file cannot be read or is no mapping, or an override is not key=value.
    """
    layers = _with_inherited(path)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise DataError(f"{_shown(text)}: write an override as key=value with a key of {path}")
        change = _parsed(value, _shown(text))
        for part in reversed(key.split(".")):
            change = {part: change}
        layers.append(change)
    content: dict[str, Any] = {}
    try:
        for layer in layers:
            content = _merged(content, layer)
    except RecursionError as error:
        raise DataError(f"{path}: its mappings are nested too deeply") from error
    return content


def _with_inherited(path: Path) -> list[dict[str, Any]]:
    """The mappings of a file and its ancestors, the oldest ancestor first."""
    layers: list[dict[str, Any]] = []
    read: list[Path] = []
    while True:
        content = _read_mapping(path)
        parent = content.pop(INHERITS, None)
        layers.insert(0, content)
        read.append(path.resolve())
        if parent is None:
            return layers
        if not isinstance(parent, str) or not _is_text(parent):
            raise DataError(f"{path}: {INHERITS} must be the name of a file, not {_shown(parent)}")
        beside = path.parent / parent
        try:
            path = beside if beside.is_file() else find_config(parent)
        except (DataError, OSError) as error:
            raise DataError(f"{path}: {INHERITS} {one_line(error, 300)}") from error
        if path.resolve() in read:
            raise DataError(f"{path}: {INHERITS} goes in a circle")
        if len(read) == MAX_FILES:
            raise DataError(f"{path}: more than {MAX_FILES} files inherit from each other")


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES} bytes: not a configuration")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error
    content = _parsed(text, str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a mapping of keys to values")
    return content


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses merge keys (`<<`) that multiply without end."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_MERGED_KEYS:
            raise yaml.constructor.ConstructorError(None, None, "too many merged keys")


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # _Loader is a SafeLoader
    except YAML_ERRORS as error:
        raise DataError(f"{where} is not YAML: {one_line(error, 300)}") from error


def _merged(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def build(kind: type[T], content: object, where: str, key: str = "") -> T:
    """`content`, found in `where` under the dotted `key`, as the dataclass `kind`, fully checked.

    Fields may be bool, int, float, str, Literal, tuples and dataclasses, each also `| None`, and
    `Annotated[..., Range]`.

    Raises:
        DataError: a key is unknown (the nearest known one is suggested) or missing, a value has
            the wrong type or is out of range, or the dataclass itself refuses it.
    """
    place = f"{where}: {key}" if key else where
    if not isinstance(content, Mapping):
        raise DataError(f"{place} must be a mapping of keys to values")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in content:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1) if _is_short(name) else []
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
            raise DataError(f"{place}: unknown key {_shown(name)}; {hint}")
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {}
    for name, field in fields.items():
        if name in content:
            below = f"{key}.{name}" if key else name
            values[name] = _value(hints[name], content[name], where, below)
        elif field.default is dataclasses.MISSING:
            raise DataError(f"{place}: {name!r} is missing")
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    place = f"{where}: {key}"
    if origin is Annotated:
        number = _value(arguments[0], value, where, key)
        if number not in arguments[1]:
            raise DataError(f"{place} must be {arguments[1]}, not {_shown(value)}")
        return number
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _value(hint, value, where, key)
    if origin is typing.Literal:
        if not isinstance(value, str) or value not in arguments:
            raise DataError(f"{place} must be one of {', '.join(arguments)}, not {_shown(value)}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where, key)
    if is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, key)
    if hint is float and type(value) in (int, str):
        with suppress(ValueError, OverflowError):  # YAML 1.1 takes 1e-3, without a point, for text
            value = float(value)
    if type(value) is not hint:
        raise DataError(f"{place} must be {hint.__name__}, not {_shown(value)}")
    if hint is float and not math.isfinite(value):
        raise DataError(f"{place} must be a finite number, not {value}")
    if hint is str and not _is_text(value):
        raise DataError(f"{place} must be one line of text, not {_shown(value)}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, where: str, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: {key} must be a list with at least one entry")
    if arguments[1:] == (Ellipsis,):
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise DataError(f"{where}: {key} must have {len(arguments)} entries")
    entries = zip(arguments, value, strict=True)
    return tuple(_value(hint, v, where, f"{key}[{i}]") for i, (hint, v) in enumerate(entries))


def _is_text(value: str) -> bool:
    """Whether a text is free of line breaks, NUL and other control characters."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value)


def _is_short(value: object) -> bool:
    """Whether `value` is a scalar that prints in a line."""
    if isinstance(value, int):
        return abs(value) < 10**30
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) < 80)


def _shown(value: object) -> str:
    """A value of any size, for an error message."""
    if _is_short(value):
        return repr(value)
    return f"{value[:60]!r}..." if isinstance(value, str) else f"this {type(value).__name__}"
