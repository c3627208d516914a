"""`zoo env`: the versions, devices, caches and variables that a bug report needs."""

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any

from zoo._text import echo
from zoo._version import VERSION

from .listing import AsJson, print_json

DISTRIBUTION = "zoo-finetune"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "accelerate", "huggingface-hub", "safetensors", "numpy")
PREFIXES = ("HF_", "ZOO_", "CUDA_", "OMP_", "MKL_", "PYTORCH_")
OTHERS = ("XDG_CACHE_HOME", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_SECRET = re.compile("TOKEN|KEY|PASSWORD|SECRET")
_EXTRA = re.compile(r"""^([\w.-]+).*;.*\bextra == ["']([\w-]+)["']""")
WIDTH = 20


def env(as_json: AsJson = False) -> None:
    """Show versions, devices and cache folders, for a bug report.

    \b
    Examples:
      zoo env
      zoo env --json
    """  # noqa: D301
    facts = collect()
    if as_json:
        print_json(facts)
        return
    for name, text in _describe(facts):
        echo(f"{name:<{WIDTH}} {text}")


def collect() -> dict[str, Any]:
    """Return all facts as plain values; sizes are in bytes."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    return {
        "zoo": VERSION,
        "installed_in": str(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": _list_extras(),
        "devices": _list_devices(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": {"total": memory.total, "available": memory.available},
        "caches": _list_caches(),
        "variables": _list_variables(),
    }


def _describe(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "zoo", f"{facts['zoo']} in {facts['installed_in']}"
    yield "python", f"{facts['python']} on {facts['system']}"
    for name, found in facts["packages"].items():
        yield name, found or "not installed"
    for name, missing in facts["extras"].items():
        yield f"extra {name}", f"lacks {', '.join(missing)}" if missing else "installed"
    yield "devices", ", ".join(facts["devices"])
    yield "cores, threads", f"{facts['cores']}, {facts['threads']}"
    memory = facts["memory"]
    yield "memory", f"{memory['available'] / 1e9:.1f} GB of {memory['total'] / 1e9:.1f} GB available"
    for name, cache in facts["caches"].items():
        yield f"cache of {name}", f"{cache['bytes'] / 1e6:,.1f} MB in {cache['folder']}"
    for name, value in facts["variables"].items():
        yield name, value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _list_extras() -> dict[str, list[str]]:
    """Return what each extra lacks, by its name; nothing of a package that was not installed."""
    try:
        extras = [name for name in distribution(DISTRIBUTION).metadata.get_all("Provides-Extra") or []]
        needed = [found.groups() for line in requires(DISTRIBUTION) or [] if (found := _EXTRA.match(line))]
    except PackageNotFoundError:
        return {}
    return {
        extra: [name for name, of in needed if of == extra and name != DISTRIBUTION and _version(name) is None]
        for extra in extras
    }


def _list_devices() -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{index} {name}" for index, name in enumerate(gpus)), *mps, "cpu"]


def _list_caches() -> dict[str, dict[str, Any]]:
    """Return where things are kept on this machine, and their bytes on the disk."""
    from huggingface_hub import constants

    from zoo.engine.frozen import features_folder
    from zoo.files import cache_folder

    hub, features, rest = Path(constants.HF_HUB_CACHE), features_folder(), cache_folder()
    folders = {"weights": hub, "features": features, "other files": rest}
    sizes = {name: _measure(folder) for name, folder in folders.items()}
    sizes["other files"] -= sizes["features"] if features.is_relative_to(rest) else 0
    return {name: {"folder": str(folder), "bytes": sizes[name]} for name, folder in folders.items()}


def _measure(folder: Path) -> int:
    """Return the bytes of all files below a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                total += os.lstat(path).st_size
            except OSError:  # it may be removed at this moment
                continue
    return total


def _list_variables() -> dict[str, str]:
    """Return the variables that matter here; of secrets only that they are set."""
    from zoo.files import hide_password

    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES) or name in OTHERS}
    return {name: "(set)" if _SECRET.search(name) else hide_password(value) for name, value in found.items()}
