"""Any bytes as a review: the answer is a review or a 400, never an internal error."""

import json
import random
from typing import Any

from instaslice.resource_api import NEWEST, VERSIONS, Unavailable
from instaslice.serve.app import Webhook
from instaslice.serve.metrics import Metrics
from test.support.reviews import apply, patch_of
from test.support.wsgi import call

Json = dict[str, Any]

CLUSTERS = (NEWEST, VERSIONS["v1alpha2"], Unavailable("it is switched off"))
WEBHOOKS = [Webhook(lambda api=api: api, Metrics()) for api in CLUSTERS]  # type: ignore[misc]

#: Values that mutations insert: those that the rules distinguish, and some that no schema allows.
WORDS: tuple[Any, ...] = (
    *("nvidia.com/mig-1g.5gb", "nvidia.com/mig-1g.5gb.me", "nvidia.com/mig-9g.999gb"),
    *("nvidia.com/mig-banana", "nvidia.com/mig-1g.24gb-me", "mig-1g.5gb", "Always", "a~b/c"),
    *("limits", "requests", "claims", "resources", "resourceClaims", "containers"),
    *("initContainers", "restartPolicy", "resourceClaimTemplateName", "source", "name"),
    *("CREATE", "UPDATE", "DELETE", "Pod", "kubernetes.io/config.mirror", "annotations"),
    *("1", "0", "112", "113", "1k", "500m", "-1", "1e0", "1e999999", "", "\ud800", "\x00"),
    *("ae9a7e7e-e955-4870-859c-12b83927b2bd", "ae9a7e7e-e955-4870-859c-12b83927b2be"),
    *(0, 1, 2, -1, 113, 0.5, 1e300, 10**30, True, False, None),
)


def check(data: bytes) -> None:
    """Raise AssertionError if the answer to some bytes is wrong."""
    for webhook in WEBHOOKS:
        reply = call(webhook, "POST", "/mutate", data, strict=False)
        assert reply.status in (200, 400), reply
        if reply.status == 400:
            assert reply.body.count(b"\n") == 1, reply
            continue
        answer = reply.json()
        response = answer["response"]
        request = json.loads(data)["request"]
        assert response["uid"] == request["uid"]
        assert response.get("status", {}).get("code") != 500, "an internal error"
        if "patch" in response:
            assert response["allowed"]
            check_patch(webhook, json.loads(data), answer)


def check_patch(webhook: Webhook, review: Json, answer: Json) -> None:
    """Check that a patch applies, and that its result needs no other patch."""
    request = review["request"]
    request["object"] = apply(patch_of(answer), request["object"])
    try:
        body = json.dumps(review, allow_nan=False).encode()
    except ValueError:  # 1e999 is JSON that Python can read but not write
        return
    again = call(webhook, "POST", "/mutate", body, strict=False).json()
    assert again["response"]["allowed"], again
    assert patch_of(again) == []


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Bytes like `data`: JSON with a value or two changed, moved or doubled."""
    chance = random.Random(seed)
    try:
        document = json.loads(data)
        for _ in range(chance.randint(1, 4)):
            _disturb(document, chance)
        changed = json.dumps(document, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return data
    return changed if len(changed) <= most else data


def _disturb(document: Any, chance: random.Random) -> None:
    holders = _holders(document)
    if not holders:
        return
    holder = chance.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    value = chance.choice([*WORDS, {}, [], json.loads(json.dumps(chance.choice(holders)))])
    match chance.randrange(4):
        case 0 if keys:
            holder[chance.choice(keys)] = value
        case 1 if keys:
            del holder[chance.choice(keys)]
        case 2 if isinstance(holder, dict):
            holder[str(chance.choice(WORDS))] = value
        case _ if isinstance(holder, list):
            holder.insert(chance.randint(0, len(holder)), value)


def _holders(value: Any) -> list[Any]:
    """Every object and array in a document."""
    found = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            found.append(value)
            waiting += value.values() if isinstance(value, dict) else value
    return found
