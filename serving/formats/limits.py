"""How large a model file and what it unpacks to may be.

Every check that runs before a file is loaded takes these, so that one table says what is too much.
"""

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Bounds on one model file or package.

    `max_ratio` is unpacked size over stored size: deflate reaches about 1000 on nothing but zeros,
    real weights and code stay below 20. `max_elements` bounds one dimension and one whole tensor.
    """

    max_file_bytes: int = 8 * _GIB
    max_unpacked_bytes: int = 16 * _GIB
    max_ratio: int = 200
    max_entries: int = 100_000
    max_elements: int = 1 << 31


DEFAULT_LIMITS = FileLimits()
