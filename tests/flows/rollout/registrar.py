"""The registry double with the one call more that promotions make: the description of a version."""

from typing import Any

from tests.mlflow_double import MlflowDouble, Query

UPDATE = ("PATCH", "model-versions/update")


class Registrar(MlflowDouble):
    """`descriptions` by version of the one model that tests promote."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptions: dict[str, str] = {}
        calls: Any = self._server.RequestHandlerClass
        self._server.RequestHandlerClass = type("Calls", (calls,), {"do_PATCH": calls.do_POST})

    def write(self, method: str, call: str, body: Query) -> None:
        if (method, call) == UPDATE:
            self.descriptions[body["version"]] = body["description"]
        else:
            super().write(method, call, body)

    def _version(self, name: str, number: str) -> dict[str, Any]:
        return super()._version(name, number) | {"description": self.descriptions.get(number, "")}

    def tags(self, version: str, model: str = "digits") -> dict[str, str]:
        return self.models[model].versions[version].tags

    def writes(self) -> list[str]:
        """Every call that changes something."""
        return [call for call in self.seen if not call.startswith("GET")]
