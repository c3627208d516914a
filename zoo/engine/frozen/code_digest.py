"""What code computes, as a digest: functions and classes, and the values that they hold or refer to.

Code of libraries whose versions are known is named; other code - a script's, a notebook's, a package under work - is
read: bytecode, constants, defaults, closures and the globals that it uses. What cannot be read is an error, never
passed over, so that two equal digests mean equal code.
"""

import collections
import dis
import enum
import functools
import hashlib
import pathlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.optim import digest_tensor

CORE = ("torch", "torchvision", "timm", "transformers", "zoo")  # the key of kept features has their versions
MOST_VALUES = 20_000  # that one digest looks at

_PLAIN = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes)
_NAMED = (  # their text tells them apart
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, np.dtype, np.generic, range, slice,
    enum.Enum, pathlib.PurePath, types.GenericAlias, types.UnionType, typing.TypeVar,
)  # fmt: skip
_DESCRIPTORS = (
    types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
)  # fmt: skip
_CONTAINERS = (
    tuple, list, set, frozenset, dict, types.MappingProxyType, collections.OrderedDict, collections.defaultdict,
    collections.deque,
)  # fmt: skip
_OF_EVERY_CLASS = frozenset(
    {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__"}
    | {"__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__", "_abc_impl", "__match_args__"}
    | {"__dataclass_params__", "__dataclass_fields__", "__abstractmethods__", "__slots__", "__annotate_func__"}
)
_OPAQUE_BUILTINS = frozenset({"eval", "exec", "globals", "locals", "open", "input", "__import__"})
_HEAP_TYPE = 1 << 9  # a flag of classes that are not built in


class UnreadableCodeError(InputError):
    """Code, or a value that it uses, cannot be put into a digest; the text is the reason, without a full stop."""


class CodeDigest:
    """Reads values one after the other, each once; cycles end.

    Args:
        modules: Names of modules, by `id`, whose parts the caller puts into its digest itself.
    """

    # Long: one recursion over the kinds of values that code can hold; its methods call each other.

    def __init__(self, modules: Mapping[int, str]) -> None:
        self._modules = modules
        self._classes: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._held: list[Any] = []  # so that no id is used twice

    def of(self, value: Any, place: str, *, strict: bool = True) -> str:
        """Return a text that is the same for equal values, in any process.

        Args:
            value: A function, a class, or what they hold.
            place: What to call it in an error.
            strict: Whether an object that cannot be read is an error; else its class is named.

        Raises:
            UnreadableCodeError: It cannot be told what the value does.
        """
        if type(value) in _PLAIN:
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, _NAMED) or type(value).__module__ == "typing":
            return f"{kind_of(type(value))} {value!s}"
        if isinstance(value, re.Pattern):
            return f"pattern {value.pattern!r} {value.flags}"
        if isinstance(value, Tensor) and type(value) in (Tensor, nn.Parameter):
            return f"tensor {digest_tensor(value)}"
        if isinstance(value, np.ndarray) and value.dtype != object:
            return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        if isinstance(value, nn.Module) and id(value) in self._modules:
            return f"module {self._modules[id(value)]!r}"
        if isinstance(value, types.ModuleType):
            return self._module(value, place)
        if id(value) in self._texts:
            return self._texts[id(value)]
        self._hold(value, place)
        self._texts[id(value)] = f"again {place}"  # while it is read
        self._texts[id(value)] = text = self._read(value, place, strict=strict)
        if not strict:  # what was only named may have to be read later
            del self._texts[id(value)]
        return text

    def of_class(self, kind: type, place: str) -> str:
        """Return a text for a class and those that it inherits from; of a library's, what was put there by others."""
        bases = [base for base in kind.__mro__ if base is not object]
        return f"class {kind_of(kind)} " + _digest(self._own_class(base, place) for base in bases)

    def _hold(self, value: Any, place: str) -> None:
        if len(self._held) >= MOST_VALUES:
            raise UnreadableCodeError(f"{place} refers to more than {MOST_VALUES:,} values")
        self._held.append(value)

    def _read(self, value: Any, place: str, *, strict: bool) -> str:
        code = self._callable(value, place, strict=strict)
        if code is not None:
            return code
        if isinstance(value, _CONTAINERS):
            inside = self._container(value, place, strict=strict)
            return inside if type(value) in _CONTAINERS else f"{inside} {self._instance(value, place, strict=strict)}"
        return self._instance(value, place, strict=strict)

    def _callable(self, value: Any, place: str, *, strict: bool) -> str | None:
        """Return the text of what can be called or hold code; None for other values."""
        if isinstance(value, type):
            return self.of_class(value, place)
        if isinstance(value, (torch.jit.ScriptFunction, torch.jit.ScriptModule)):
            raise UnreadableCodeError(f"{place} is compiled by torch.jit, whose code cannot be read")
        if isinstance(value, types.FunctionType):
            return self._function(value, place)
        if isinstance(value, types.MethodType):
            parts: list[Any] = [value.__func__, value.__self__]
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            return self._builtin(value, place, strict=strict)
        elif isinstance(value, _DESCRIPTORS) or type(value).__module__ == "torch._ops":
            return f"{type(value).__name__} {getattr(value, '__qualname__', value)}"
        elif isinstance(value, np.ufunc):
            return f"numpy {value.__name__} {_trust('numpy')}"
        elif isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords]
        elif isinstance(value, property):
            parts = [value.fget, value.fset]
        elif isinstance(value, functools.cached_property):
            parts = [value.func]
        elif isinstance(value, (staticmethod, classmethod)):
            parts = [value.__func__]
        elif isinstance(value, functools._lru_cache_wrapper):
            parts = [value.__wrapped__]
        elif isinstance(value, types.CodeType):
            return self._code(value, place)
        else:
            return None
        return f"{type(value).__name__} " + _digest(self.of(part, place, strict=strict) for part in parts)

    def _function(self, function: types.FunctionType, place: str) -> str:
        name = _name_of(function)
        cells = [_inside(cell) for cell in function.__closure__ or ()]
        if not is_local(_module_of(function)):
            held = [cell for cell in cells if callable(cell)]
            return f"{name} {_trust(_module_of(function))} " + _digest(self.of(one, name, strict=False) for one in held)
        place = f"{function.__qualname__}()"
        lines = [self._code(function.__code__, place)]
        lines += [self.of(value, place) for value in (function.__defaults__, function.__kwdefaults__)]
        names = zip(function.__code__.co_freevars, cells, strict=True)
        lines += [f"{name} {self.of(value, f'{name} in {place}')}" for name, value in names]
        lines += self._globals(function, place)
        return "function " + _digest(lines)

    def _code(self, code: types.CodeType, place: str) -> str:
        """Return what is executed; not where it stands and how its lines are numbered."""
        numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        facts = [sys.version_info[:2], code.co_code, getattr(code, "co_exceptiontable", b""), numbers, names]
        return _digest([*map(repr, facts), *(self._constant(value, place) for value in code.co_consts)])

    def _constant(self, value: Any, place: str) -> str:
        if isinstance(value, types.CodeType):
            return self._code(value, place)
        if isinstance(value, tuple):
            return _digest(self._constant(one, place) for one in value)
        return f"set {sorted(map(repr, value))}" if isinstance(value, frozenset) else repr(value)

    def _globals(self, function: types.FunctionType, place: str) -> Iterator[str]:
        """Yield a text for each global that a function reads."""
        codes = list(_nested(function.__code__))
        used = {name for code in codes for name in code.co_names}
        for name in sorted({name for code in codes for name in _loaded(code, place)}):
            if name in function.__globals__:
                value = function.__globals__[name]
                if isinstance(value, types.ModuleType):
                    yield f"{name} " + _digest(self._module_parts(value, used, place))
                else:
                    yield f"{name} {self.of(value, f'the global {name!r} that {place} uses')}"
            elif name in _OPAQUE_BUILTINS:
                raise UnreadableCodeError(f"{place} calls {name}()")
            else:
                yield name

    def _module_parts(self, module: types.ModuleType, used: Iterable[str], place: str) -> Iterator[str]:
        """Yield what code may use of a module: of a library's, only functions that others have put there."""
        is_library = not is_local(module.__name__)
        yield f"{module.__name__} {_trust(module.__name__)}"
        if id(module) in self._texts:
            return
        self._hold(module, place)
        self._texts[id(module)] = module.__name__  # while it is read
        for name in sorted(used):
            value = vars(module).get(name)
            if isinstance(value, types.ModuleType):
                yield from self._module_parts(value, used, place)
            elif name in vars(module) and (not is_library or _is_foreign(value)):
                yield f"{name} {self.of(value, f'{module.__name__}.{name} that {place} uses')}"
        del self._texts[id(module)]  # the next function may use other parts of it

    def _module(self, module: types.ModuleType, place: str) -> str:
        if is_local(module.__name__):
            raise UnreadableCodeError(f"{place} is the module {module.__name__}, and any part of it may be used")
        return f"{module.__name__} {_trust(module.__name__)}"

    def _builtin(self, value: Any, place: str, *, strict: bool) -> str:
        owner = getattr(value, "__self__", None)
        name = f"builtin {value.__module__} {value.__qualname__}"
        is_plain = owner is None or isinstance(owner, (types.ModuleType, type))
        return name if is_plain else f"{name} {self.of(owner, place, strict=strict)}"

    def _container(self, value: Any, place: str, *, strict: bool) -> str:
        if isinstance(value, (dict, types.MappingProxyType)):
            pairs = ((self.of(key, place, strict=strict), inner, key) for key, inner in value.items())
            lines = [f"{text}: {self.of(inner, f'{place}[{key!r:.40}]', strict=strict)}" for text, inner, key in pairs]
        else:
            lines = [self.of(inner, f"{place}[{index}]", strict=strict) for index, inner in enumerate(value)]
        name = kind_of(type(value))
        return f"{name} " + _digest(sorted(lines) if isinstance(value, (set, frozenset)) else lines)

    def _instance(self, value: Any, place: str, *, strict: bool) -> str:
        kind = type(value)
        if not strict:
            return f"a {kind_of(kind)}"
        built_in = [base for base in kind.__mro__[:-1] if not base.__flags__ & _HEAP_TYPE and base not in _CONTAINERS]
        slots = {name for base in kind.__mro__ for name in _slots(base)}
        if built_in or not (hasattr(value, "__dict__") or slots or kind in _CONTAINERS):
            raise UnreadableCodeError(f"{place} is a {kind.__name__}, whose state cannot be read")
        state = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
        lines = [f"{name} {self.of(inner, f'{place}.{name}')}" for name, inner in sorted(state.items())]
        return f"{self.of_class(kind, place)} " + _digest(lines)

    def _own_class(self, kind: type, place: str) -> str:
        """Return a text for what stands in a class itself."""
        if id(kind) in self._classes:
            return self._classes[id(kind)]
        self._held.append(kind)
        self._classes[id(kind)] = f"{kind_of(kind)} itself"  # while it is read
        is_library, lines = not is_local(kind.__module__), []
        for own, value in sorted(vars(kind).items()):
            if own not in _OF_EVERY_CLASS and (not is_library or _is_moved(value, kind, own) or _is_foreign(value)):
                lines.append(f"{own} {self.of(value, f'{kind.__qualname__}.{own}')}")
        self._classes[id(kind)] = f"{kind_of(kind)} {_trust(kind.__module__)} {_digest(lines)}"
        return self._classes[id(kind)]


def digest_code(value: Any, place: str) -> str:
    """Return what a value computes as a digest: 64 hexadecimal digits.

    Args:
        value: A function, a class, or an object that can be called.
        place: What to call it in an error.

    Raises:
        UnreadableCodeError: It cannot be told what it computes.
    """
    return _digest([CodeDigest({}).of(value, place)])


def kind_of(kind: type) -> str:
    """Return the name of a class; a class of this package keeps its name when it moves to another module."""
    return _say(kind.__module__, kind.__qualname__)


def is_local(module: str | None) -> bool:
    """Whether a module is not of Python or an installed release: its code may change while its version does not."""
    return _trust(module) == "local"


def closes_over_module(value: Any) -> bool:
    """Whether a function refers to a module by a variable around it: in a copy it still refers to the original."""
    if isinstance(value, types.MethodType):
        return isinstance(value.__self__, nn.Module) or closes_over_module(value.__func__)
    if isinstance(value, functools.partial):
        inside = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.FunctionType):
        cells = [_inside(cell) for cell in value.__closure__ or ()]
        inside = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    else:
        return False
    return any(isinstance(one, nn.Module) or closes_over_module(one) for one in inside if one is not value)


@functools.cache
def _trust(module: str | None) -> str:
    """Return why the code of a module need not be read: its version, or nothing if that is known anyway; or `local`."""
    root = (module or "").partition(".")[0]
    if root in CORE:
        return ""
    if root in sys.stdlib_module_names and root != "__main__":
        return f"python {sys.version_info[0]}.{sys.version_info[1]}"
    place = getattr(sys.modules.get(root), "__file__", None) or ""
    if not {"site-packages", "dist-packages"} & set(pathlib.Path(place).parts):
        return "local"
    return _find_release(root) or "local"


def _find_release(root: str) -> str | None:
    """Return the version of an installed package; None for one that was installed from a folder or a repository."""
    names = [root]
    for attempt in range(2):
        for name in names:
            try:
                found = metadata.distribution(name)
            except (metadata.PackageNotFoundError, ValueError):
                continue
            return None if found.read_text("direct_url.json") else found.version
        if attempt == 0:
            names = metadata.packages_distributions().get(root) or []
    return None


def _is_foreign(value: Any, depth: int = 4) -> bool:
    """Whether a part of a library is, or wraps, code from elsewhere."""
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        return _is_foreign(value.__func__, depth)
    if isinstance(value, property):
        return _is_foreign(value.fget, depth)
    if isinstance(value, functools.partial):
        return _is_foreign(value.func, depth)
    if not isinstance(value, types.FunctionType) or depth == 0:
        return False
    cells = (_inside(cell) for cell in value.__closure__ or ())
    return is_local(_module_of(value)) or any(_is_foreign(cell, depth - 1) for cell in cells)


def _is_moved(value: Any, kind: type, own: str) -> bool:
    """Whether a function stands in a class under another name than it was written with."""
    is_function = isinstance(value, types.FunctionType)
    return is_function and _name_of(value) != _say(kind.__module__, f"{kind.__qualname__}.{own}")


def _module_of(function: types.FunctionType) -> str | None:
    """Return the module whose code a function is; `__module__` may have been copied from what it wraps."""
    name = function.__globals__.get("__name__")
    return name if isinstance(name, str) else None


def _name_of(function: types.FunctionType) -> str:
    return _say(_module_of(function), function.__code__.co_qualname)


def _say(module: str | None, name: str) -> str:
    return f"zoo.{name}" if (module or "").partition(".")[0] == "zoo" else f"{module}.{name}"


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet
        return None


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code and those of the functions and classes that it makes."""
    yield code
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _nested(value)


def _loaded(code: types.CodeType, place: str) -> Iterator[str]:
    """Yield the names of the globals and builtins that a code reads or writes."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
            yield instruction.argval
        elif instruction.opname == "IMPORT_NAME" and is_local(instruction.argval):
            raise UnreadableCodeError(f"{place} imports {instruction.argval or 'a module'} while it runs")


def _slots(kind: type) -> list[str]:
    names = vars(kind).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else names) if name not in ("__dict__", "__weakref__")]


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        text = line.encode("utf8", "backslashreplace")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()
