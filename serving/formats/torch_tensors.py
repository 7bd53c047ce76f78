"""Arrays as torch tensors and back, for the formats that torch runs.

Called by their adapters. BF16 crosses over bit by bit, because numpy has no such type of its own.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from serving.core.datatypes import DTYPES, Array

_BF16 = DTYPES["BF16"]
_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.float64: "FP64",
    torch.bfloat16: "BF16",
}


def limit_threads(threads: int) -> None:
    """Set for the whole process: torch has one pool for all its models."""
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # can be set only once, before the first parallel work
        torch.set_num_interop_threads(1)


def datatype_of_tensor(dtype: torch.dtype) -> str | None:
    """Protocol name of a torch dtype; None for one the protocol cannot carry."""
    return _DATATYPES.get(dtype)


def tensors_of(answer: Any) -> Iterable[torch.Tensor]:
    """Every tensor of an answer in order, however nested; an absent optional one takes no place."""
    if isinstance(answer, torch.Tensor):
        return [answer]
    if answer is None:
        return []
    if isinstance(answer, dict):
        return [tensor for item in answer.values() for tensor in tensors_of(item)]
    if isinstance(answer, tuple | list):
        return [tensor for item in answer for tensor in tensors_of(item)]
    raise TypeError(f"forward returned {type(answer).__name__}, not tensors")


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor with memory of its own: a module may change its input in place."""
    if array.dtype == _BF16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def array_of(tensor: torch.Tensor) -> Array:
    plain = tensor.detach().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(_BF16)
    return plain.numpy()
