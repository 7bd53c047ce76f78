"""What is known of a version without asking it anything: the record that tags, pages and differences use.

Made by `flows.catalog.describe`, kept in the state store as JSON under kind `description`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from serving.formats.outline import Layer, Shape
from serving.formats.told import Told

KIND = "description"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. `shape` keeps free axes, by name where the file names them, else as -1;
    None where not even the rank is known.
    """

    name: str
    datatype: str
    shape: Shape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One version. `size_bytes` includes external weights, `architecture` is one line for people.

    `layers` are the first of `layer_count`. `runtimes` are requirements (`>=1.13`) by runtime.
    `notes` are sentences on what could not be read.
    """

    format: str
    file_name: str
    size_bytes: int
    architecture: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: Mapping[str, int] = field(default_factory=dict)
    parameter_count: int | None = None
    layer_count: int = 0
    layers: tuple[Layer, ...] = ()
    opsets: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    producer: str | None = None
    producer_version: str | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    notes: tuple[str, ...] = ()

    def completed(self, told: Told) -> "Description":
        """With what `told` says wherever the file itself says nothing."""
        return replace(self, told=self.told.or_else(told))

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Packages needed to run it: as declared, else the runtimes that are packages."""
        runtimes = (f"{name}{wanted}" for name, wanted in self.runtimes.items() if name.islower())
        return self.told.dependencies or tuple(runtimes)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        values: dict[str, Any] = _DESCRIPTIONS.dump_python(self, mode="json")
        return values


_DESCRIPTIONS = TypeAdapter(Description)


def from_json(values: Mapping[str, Any]) -> Description:
    """What `as_json` made, read back from the store."""
    return _DESCRIPTIONS.validate_python(dict(values))
