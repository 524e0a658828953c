"""Plug-ins by name or by dotted path.

One registry per kind of plug-in (channel, component, reward term, user preset, ...). A YAML value
is either a registered name or the place of an object of the user's own: ``package.module:object``.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from marec_env.errors import ConfigError, MarecError, PluginError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Registry",
    "callable_at",
    "is_own",
    "load_object",
    "names_own",
    "naming",
    "numbers",
    "search_in",
    "searched",
    "trusted",
]

T = TypeVar("T")


_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
ALLOW_PLUGINS = "MAREC_ALLOW_PLUGINS"
"""Environment variable: ``1`` lets any file name code (``--allow-plugins`` sets it)."""
TRUSTED_FOLDERS = "MAREC_TRUSTED_FOLDERS"
"""Environment variable: folders, apart by the system's path separator, whose files may name code;
those in the working directory always may."""
CODE_FOLDERS = "MAREC_CODE_FOLDERS"
"""Environment variable, which processes that this one starts inherit: folders of files that named
code, where it is looked for after all others."""
_refused: dict[str, str] = {}  # code that only a stranger's file has named: where it does


def is_place(text: str) -> bool:
    """Return whether a text has the form ``package.module:object``."""
    return _PLACE.fullmatch(text) is not None


def trust(name: str) -> None:
    """Let a plug-in be loaded, whatever file names it."""
    _refused.pop(name, None)


def judge(name: str, file: str, place: str) -> None:
    """Note that a file names code: it is trusted if the file is, and refused when it is loaded if
    not.

    Args:
        name: ``package.module:object``.
        file: the file.
        place: where in it, for the message.
    """
    if trusted(file):
        trust(name)
    else:
        _refused.setdefault(name, place)


def trusted(file: str | Path) -> bool:
    """Return whether a file may name code."""
    folders = [".", *filter(None, os.environ.get(TRUSTED_FOLDERS, "").split(os.pathsep))]
    home = Path(file).resolve()
    return os.environ.get(ALLOW_PLUGINS) == "1" or any(
        home.is_relative_to(Path(folder).resolve()) for folder in folders
    )


def search_in(folder: str | Path) -> None:
    """Look for plug-ins in a folder too, after all others: beside the file that names them."""
    places = dict.fromkeys([*searched(), str(Path(folder).resolve())])
    os.environ[CODE_FOLDERS] = os.pathsep.join(places)


def searched() -> list[str]:
    """Return the folders that were given to :func:`search_in`, here or where this was started."""
    return [place for place in os.environ.get(CODE_FOLDERS, "").split(os.pathsep) if place]


def load_object(path: str) -> object:
    """Return the object at ``package.module:object``; its module is run.

    Raises:
        ConfigError: the path has another form, only a file that is not trusted names it, there is
            no such module, or the module lacks the object.
        PluginError: the module itself fails.
    """
    if not is_place(path):
        raise ConfigError(f"'{path}' is not a place of the form package.module:object")
    if path in _refused:
        raise ConfigError(
            f"{_refused[path]}: names code to run, '{path}', and lies outside the working "
            f"directory; if you trust it, add --allow-plugins, or its folder to {TRUSTED_FOLDERS}"
        )
    module_name, _, attribute = path.partition(":")
    sys.path += [place for place in searched() if place not in sys.path]
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import '{module_name}' (from '{path}'): {error}; it is looked for beside the "
            "configuration, in the working directory and the folders of PYTHONPATH"
        ) from error
    except MarecError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"'{path}': its module fails when it is imported: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"module '{module_name}' has no '{attribute}' (from '{path}')")
        found = getattr(found, part)
    return found


def is_own(name: str) -> bool:
    """Return whether a plug-in is named by its place, ``package.module:object``."""
    return ":" in name


def names_own(values: object) -> bool:
    """Return whether nested mappings and lists name a plug-in by its place."""
    if isinstance(values, str):
        return is_own(values)
    if isinstance(values, Mapping):
        return any(names_own(part) for pair in values.items() for part in pair)
    return isinstance(values, list | tuple) and any(map(names_own, values))


class Registry(Generic[T]):
    """A table of plug-ins of one kind, in order of registration::

    TERMS: Registry[Term] = Registry("reward term")

    @TERMS.register("tail_clicks")      # a name for YAML
    def tail_clicks(outcome): ...

    TERMS.get("tail_clicks")            # the function
    TERMS.get("shop.terms:margin")      # one of a user's own, by its place
    """

    def __init__(self, kind: str) -> None:
        """Args:
        kind: what the plug-ins are, in words for error messages: ``"reward term"``.
        """
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._places: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its object under ``name``; a taken name is an error."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ConfigError(
                    f"{self.kind} '{name}' is registered already; choose another name"
                )
            self._entries[name] = entry
            return entry

        return enter

    def register_at(self, name: str, place: str) -> None:
        """Enter what lies at ``package.module:object``, loaded when it is first asked for."""
        self.register(name)(place)  # type: ignore[arg-type]
        self._places[name] = place

    def get(self, name: str) -> T:
        """Return the plug-in of that name, or the object at ``package.module:object``."""
        if is_own(name):
            return load_object(name)  # type: ignore[return-value]
        if name not in self._entries:
            raise ConfigError(
                unknown_name(self.kind, name, self._entries) + "; your own: 'package.module:object'"
            )
        if name in self._places:
            self._entries[name] = load_object(self._places.pop(name))  # type: ignore[assignment]
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """Return the registered names in order of registration."""
        return tuple(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let what goes wrong inside the user's own code name it.

    Args:
        what: whose code runs, for the message: ``"reward term 'shop.terms:margin'"``.

    Raises:
        PluginError: anything but a :class:`MarecError`, which tells its own story, was raised.
    """
    try:
        yield
    except MarecError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        told = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise PluginError(f"{what} failed: {told}") from error


def callable_at(
    key: str, registry: Registry[T], name: str, check: Callable[..., Any] | None = None
) -> T:
    """Return a plug-in that is to be called.

    Args:
        key: where it was configured, for messages: ``"rewards.team"``.
        registry: of its kind.
        name: registered, or ``package.module:object``.
        check: of what a plug-in of the user's own gives, and what it is to give instead:
            ``(what, result, *arguments) -> result``.

    Raises:
        ConfigError: there is none of that name, or it cannot be called; names the key.
    """
    try:
        found = registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    if not callable(found):
        raise ConfigError(
            f"{key}: '{name}' is a {type(found).__name__}; name a function for a {registry.kind}"
        )
    if check is None or not is_own(name):
        return found
    return _checked(f"{registry.kind} '{name}'", found, check)  # type: ignore[return-value]


def _checked(
    what: str, function: Callable[..., Any], check: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with naming(what):
            found = function(*arguments)
        return check(what, found, *arguments)

    return call


def numbers(
    what: str,
    found: object,
    *shape: int | None,
    dtype: torch.dtype | None = None,
    verb: str = "returned",
) -> Tensor:
    """Return what a plug-in gave, if it is a tensor of that kind and shape, and finite.

    Args:
        what: whose, for messages: ``"reward term 'shop.terms:margin'"``.
        found: what it gave.
        shape: the sizes; ``None`` where any will do.
        dtype: the kind of numbers, float32 unless given.
        verb: between the two, for messages.

    Raises:
        ConfigError: it is not.
    """
    import torch  # what reads configurations only does without it

    dtype = torch.float32 if dtype is None else dtype
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    hint = f"needed: {dtype} [{wanted}], one row a session"
    if not isinstance(found, torch.Tensor):
        raise ConfigError(f"{what} {verb} {type(found).__name__}; {hint}")
    fits = found.dim() == len(shape) and all(
        size is None or size == given for size, given in zip(shape, found.shape, strict=True)
    )
    if found.dtype != dtype or not fits:
        raise ConfigError(f"{what} {verb} {found.dtype} {list(found.shape)}; {hint}")
    if not bool(found.isfinite().all()):
        raise ConfigError(f"{what} {verb} numbers that are not finite; mend it")
    return found
