"""Weights and images made of their names: the same numbers wherever the same names are.

A 32-bit hash of name and place gives every value; tests/fixtures/yolo_nas/README.md has the formula.
"""

import math
import zlib

import numpy as np
import torch

SALT = "zoo"


def fill(model, salt=SALT):
    """Set every tensor of a model's state dict by its name; return the model."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(np.asarray(values(name, tuple(tensor.shape), salt))))
    return model


def image(tag, count, height, width, salt=SALT):
    """Images `(B, 3, H, W)`, uint8: blocks of 8 x 8 px of one colour, with noise."""
    blocks = (count, 3, math.ceil(height / 8), math.ceil(width / 8))
    coarse = uniform(f"{tag}.coarse", math.prod(blocks), salt).reshape(blocks)
    coarse = coarse.repeat(8, 2).repeat(8, 3)[:, :, :height, :width]
    fine = uniform(f"{tag}.fine", count * 3 * height * width, salt).reshape(count, 3, height, width)
    return torch.from_numpy(np.floor(160 * coarse + 96 * fine).astype(np.uint8))


def values(name, shape, salt=SALT):
    """The values of one tensor of the state dict, float32; int64 for counters."""
    if name.endswith("num_batches_tracked"):
        return np.int64(_seed(name, salt) % 1000)
    u = uniform(name, math.prod(shape), salt).reshape(shape)
    return _scale(name, shape, u).astype(np.float32)


def uniform(name, count, salt=SALT):
    """The first numbers of the stream of a name, float64, 0 <= u < 1."""
    h = np.arange(count, dtype=np.uint32)
    h *= np.uint32(0x9E3779B1)
    h += np.uint32(_seed(name, salt))
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h / 2**32


def _seed(name, salt):
    return zlib.crc32(f"{salt}:{name}".encode())


def _scale(name, shape, u):
    s = 2 * u - 1
    if name.endswith("running_mean"):
        return 0.1 * s
    if name.endswith("running_var"):
        return 0.75 + 0.5 * u
    if name.endswith(".alpha"):
        return 0.6 + 0.3 * u
    if len(shape) == 4:
        fan = shape[0] if ".upsample." in name else shape[1] * shape[2] * shape[3]
        return _gain(name) * math.sqrt(3 / fan) * s
    if name.endswith(".weight"):
        return (0.5 if ".bottlenecks." in name else 1) * (1 + 0.25 * s)
    return 0.2 * s - (2 if ".cls_pred." in name else 0)


def _gain(name):
    if any(branch in name for branch in (".branch_3x3.", ".branch_1x1.", ".rbr_reparam.")):
        return 0.9
    return 1.6 if ".cls_pred." in name else 2.5 if ".reg_pred." in name else 1.35
