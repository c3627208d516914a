"""The proof that frozen tensors did not move: a digest of each, taken before, during and after training."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import FrozenError, InputError

MOST_BYTES_COPIED = 2**30
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class Proof:
    """Digests of a fixed set of tensors, recorded at named moments; a change is an error with the tensor's name.

    Up to 1 GiB of tensors are copied, too, where they are: one whose bits are those of its copy has the digest that it
    had, which takes about a fifth of the time of computing it, and on a GPU brings nothing to the CPU.

    Args:
        tensors: Name → tensor, any dtype and device. The tensors are read again at each `check`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.digests = {name: digest_tensor(tensor) for name, tensor in self._tensors.items()}
        self._known: dict[str, tuple[Tensor, str]] = {}  # copies and their digests
        if sum(tensor.nbytes for tensor in self._tensors.values()) <= MOST_BYTES_COPIED:
            copies = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
            self._known = {name: (copy, self.digests[name]) for name, copy in copies.items()}
        self.moments: list[dict[str, str]] = [{"when": "before the first step", "sha256": _join(self.digests)}]

    def check(self, when: str) -> None:
        """Digest all tensors again and record it.

        Raises:
            FrozenError: If one has changed since the beginning; the text names the first few.
        """
        self.compare({name: self._digest(name, tensor) for name, tensor in self._tensors.items()}, when)

    def compare(self, now: Mapping[str, str], when: str) -> None:
        """Record digests that were taken elsewhere, for example of a file that was written."""
        moved = [name for name, digest in self.digests.items() if now.get(name) != digest]
        if moved:
            more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
            raise FrozenError(
                f"frozen tensors changed {when}: {', '.join(moved[:3])}{more}. Their learning rate is 0, so "
                "something outside the optimizer modifies them (a hook, a custom layer, another optimizer). The run "
                "was stopped. If they are meant to change, set a learning rate above 0."
            )
        self.moments.append({"when": when, "sha256": _join({name: now[name] for name in self.digests})})

    def release(self, names: Iterable[str], when: str) -> None:
        """Check all tensors a last time and let go of those that learn from now on."""
        self.check(when)
        for name in names:
            self._tensors.pop(name, None)
            self.digests.pop(name, None)
            self._known.pop(name, None)
        self.moments.append({"when": f"{when}, those still frozen", "sha256": _join(self.digests)})

    def continue_from(self, earlier: Mapping[str, Any]) -> None:
        """Go on with the proof of an interrupted run: its tensors have to be these.

        Args:
            earlier: Its `digests` and `moments`.

        Raises:
            InputError: They are others.
        """
        now, self.digests, self.moments = self.digests, dict(earlier["digests"]), list(earlier["moments"])
        other = [name for name in {*now, *self.digests} if now.get(name) != self.digests.get(name)]
        if other:
            names = ", ".join(sorted(other)[:3])
            raise InputError(
                f"the model's frozen tensors differ from those the run started with: {names}. Resume it with the "
                "original code, or start a new run."
            )
        self.compare(now, "when the run was resumed")

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as plain values: equal `sha256` at all moments says that nothing moved."""
        return {"tensors": len(self.digests), "moments": self.moments, "digests": self.digests}

    def _digest(self, name: str, tensor: Tensor) -> str:
        if name in self._known:
            copy, digest = self._known[name]
            if _has_equal_bits(tensor.detach(), copy):
                return digest
        return digest_tensor(tensor)


def digest_tensor(tensor: Tensor) -> str:
    """Return the SHA-256 of dtype, shape and bytes of a tensor, independent of its memory format and device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _has_equal_bits(tensor: Tensor, copy: Tensor) -> bool:
    """Compare as integers: of floating-point numbers, 0 equals -0, and NaN does not equal itself."""
    alike = (tensor.dtype, tensor.shape, tensor.device) == (copy.dtype, copy.shape, copy.device)
    if not alike or tensor.element_size() not in INTEGERS:
        return False
    integers = INTEGERS[tensor.element_size()]
    return torch.equal(tensor.view(integers), copy.view(integers))


def _join(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name} {value}" for name, value in digests.items()).encode()).hexdigest()
