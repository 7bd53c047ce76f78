"""Runs the conformance suite against any server and prints a line per case.

    python -m tests.conformance http://127.0.0.1:8080 --model digits
    python -m tests.conformance http://127.0.0.1:9000 --model m --input x:FP32:-1,64

Exit code 0 when no case failed.
"""

import argparse
import sys
from collections import Counter

import httpx

from tests.conformance.case import Outcome
from tests.conformance.suite import CASES
from tests.conformance.target import Target, Tensor


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    inputs = [Tensor.parse(text) for text in options.input]
    model = options.model or _only_model(options.url)
    with Target(options.url.rstrip("/"), model, options.key, inputs) as target:
        return 1 if _report(target)[Outcome.FAILED] else 0


def _report(target: Target) -> Counter[Outcome]:
    print(f"{target.url} model {target.model}")
    counts: Counter[Outcome] = Counter()
    for case in CASES:
        result = case.run(target)
        counts[result.outcome] += 1
        reason = f": {result.reason}" if result.reason else ""
        print(f"{result.outcome:7} {case.number:02} {case.title} [{case.source}]{reason}", flush=True)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))
    return counts


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the server listens, without /v2")
    parser.add_argument("--model", default="", help="the model to ask; by default the only one there is")
    parser.add_argument("--key", default="", help="sent as X-API-Key")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:DATATYPE:SHAPE",
        help="an input of the model, for servers whose metadata names none; -1 is any length",
    )
    return parser.parse_args(arguments)


def _only_model(url: str) -> str:
    """KServe's and our list of models, else the repository index."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
        answer = http.get("/v2/models")
        names = answer.json().get("models", []) if answer.status_code == httpx.codes.OK else []
        if not names:
            names = sorted({entry["name"] for entry in http.post("/v2/repository/index", json={}).json()})
    if len(names) != 1:
        raise SystemExit(f"the server has {len(names)} models ({', '.join(names)}): choose one with --model")
    return str(names[0])


if __name__ == "__main__":
    sys.exit(main())
