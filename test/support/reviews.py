"""The recorded reviews, and helpers for answers."""

import base64
import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch

Json = dict[str, Any]

FOLDER = Path(__file__).parents[1] / "data" / "reviews"
CREATE = sorted(path.stem for path in (FOLDER / "create").glob("*.json"))
UPDATE = sorted(path.stem for path in (FOLDER / "update").glob("*.json"))


def load(operation: str, name: str) -> Json:
    review: Json = json.loads((FOLDER / operation / f"{name}.json").read_text())
    return review


def patch_of(answer: Json) -> list[Json]:
    """The decoded operations of an AdmissionReview's response."""
    patch = answer["response"].get("patch")
    operations: list[Json] = json.loads(base64.b64decode(patch, validate=True)) if patch else []
    return operations


def apply(operations: list[Json], pod: Json) -> Json:
    """The pod after a patch, computed by jsonpatch."""
    patched: Json = jsonpatch.apply_patch(copy.deepcopy(pod), operations)
    return patched


def pod_review(pod: Json, **request: object) -> Json:
    """An AdmissionReview for a new pod."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "name": "pod",
            "operation": "CREATE",
            "object": pod,
            **request,
        },
    }
