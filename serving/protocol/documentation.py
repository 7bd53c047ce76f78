"""What `/openapi.json` says of inference, which the framework does not route and so cannot describe."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_DATATYPES = [
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
]
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"enum": _DATATYPES},
        "parameters": _PARAMETERS,
        "data": {"type": "array", "items": {}},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
            },
        },
    },
}
_RESPONSE = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_SCORING = {
    "type": "object",
    "properties": {
        "inputs": {},
        "instances": {"type": "array", "items": {}},
        "dataframe_split": {"type": "object"},
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
    },
}
_PREDICTIONS = {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}}
_JSON_BYTES = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "Length of the JSON part, where binary tensors follow it; 0 where there is none.",
    "schema": {"type": "integer", "minimum": 0},
}


class DocumentedApi(FastAPI):
    """The framework, whose schema also describes what passes it by."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        schema["paths"].update(_PATHS)
        return schema


def _posted(
    summary: str,
    tag: str,
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    *parameters: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "parameters": list(parameters),
            "requestBody": {"required": True, "content": request},
            "responses": {
                "200": {"description": "The answer", "content": response},
                "default": {"description": "An error", "content": _json(_ERROR)},
            },
        }
    }


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_INFER = ("Open Inference Protocol", _json(_REQUEST) | _BYTES, _json(_RESPONSE) | _BYTES, _JSON_BYTES)
_CSV = {"text/csv": {"schema": {"type": "string"}}}
_SCORE = ("MLflow scoring", _json(_SCORING) | _CSV, _json(_PREDICTIONS))
_PATHS = {
    "/v2/models/{model}/infer": _posted("Infer", *_INFER, _named("model")),
    "/v2/models/{model}/versions/{version}/infer": _posted(
        "Infer with a version, by number or alias", *_INFER, _named("model"), _named("version")
    ),
    "/invocations": _posted("Predict with the only model", *_SCORE),
    "/models/{model}/invocations": _posted("Predict", *_SCORE, _named("model")),
    "/models/{model}/versions/{version}/invocations": _posted(
        "Predict with a version, by number or alias", *_SCORE, _named("model"), _named("version")
    ),
}
