"""A plan as text, as Markdown for a ticket, and as JSON. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Final

from instaslice.doctor.plan import Plan, Workload
from instaslice.doctor.steps import Step

#: What is said once of all of it.
TRIED: Final = (
    "The steps follow the driver's documentation and code; they have not been tried on a GPU. "
    "docs/migrate.md has the sources."
)
_ON: Final = {True: "on", False: "off", None: "unknown"}
_HOW: Final = {"limits": "", "claims": " (has claims)", "das": " (of OpenShift's removed operator)"}


def as_json(plan: Plan, steps: Sequence[Step]) -> str:
    """An object with the fields of a `Plan`, and `steps`."""
    value = asdict(plan) | {"steps": [asdict(step) for step in steps], "note": TRIED}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_text(plan: Plan, steps: Sequence[Step]) -> str:
    """For a terminal."""
    lines: list[str] = []
    for title, found in _sections(plan):
        lines += [title, *(f"  {line}" for line in found), ""]
    lines.append("Steps")
    if not steps:
        lines.append("  nothing here asks for slices, and no node offers any: nothing to do")
    for number, step in enumerate(steps, 1):
        lines += [f"  {number}. {step.title}", f"     {step.why}"]
        lines += [f"       $ {command}" for command in step.commands]
        lines += [f"     back: {command}" for command in step.back]
    return "\n".join([*lines, "", TRIED]) + "\n"


def as_markdown(plan: Plan, steps: Sequence[Step]) -> str:
    """For a ticket: lists, and the commands in blocks."""
    lines = ["# From the device plugin to DRA", ""]
    for title, found in _sections(plan):
        lines += [f"## {title}", "", *(f"- {line}" for line in found), ""]
    lines += ["## Steps", ""]
    if not steps:
        lines += ["Nothing here asks for slices, and no node offers any: nothing to do.", ""]
    for number, step in enumerate(steps, 1):
        lines += [f"### {number}. {step.title}", "", f"{step.why}.", ""]
        lines += [*_block(step.commands), *_back(step.back)]
    return "\n".join([*lines, TRIED]) + "\n"


def _back(commands: Sequence[str]) -> list[str]:
    return ["Back:", "", *_block(commands)] if commands else []


def _block(commands: Iterable[str]) -> list[str]:
    found = list(commands)
    return ["```", *found, "```", ""] if found else []


def _sections(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """What was found, by title."""
    served = f"resource.k8s.io/{plan.resource_api}" if plan.resource_api else "no DRA"
    cluster = [f"Kubernetes {plan.kubernetes}, {served}"]
    cluster += [f"feature gate {name}: {_ON[on]}" for name, on in plan.gates.items()]
    cluster.append(f"NVIDIA's DeviceClass mig.nvidia.com: {'there' if plan.has_driver else 'none'}")
    cluster += [f"{name}: {what}" for name, what in plan.components.items()]
    cluster.append(f"InstaSlice: {plan.installed or 'not installed'}")
    yield "Cluster", cluster
    yield "Workloads", [_workload(each) for each in plan.workloads] or ["none asks for slices"]
    nodes = []
    for node in plan.nodes:
        offered = ", ".join(f"{name}: {amount}" for name, amount in node.advertised.items())
        parts = [
            node.product,
            f"mig.config {node.config}" if node.config else "",
            f"strategy {node.strategy}" if node.strategy else "",
            f"the device plugin offers {offered}" if offered else "",
            "MIG slices are published for DRA" if node.published else "",
        ]
        nodes.append(f"{node.name}: {'; '.join(filter(None, parts))}")
    yield "Nodes", nodes or ["none has GPUs that anybody tells of"]
    if plan.policies:
        yield "Quotas and limits", [f"{each.what} {each.becomes}" for each in plan.policies]
    if plan.notes:
        yield "To know", plan.notes
    if plan.unknown:
        yield "Unknown", [f"{name}: {why}" for name, why in plan.unknown.items()]


def _workload(workload: Workload) -> str:
    asks = ", ".join(f"{name}: {amount}" for name, amount in workload.asks.items())
    pods = "1 pod" if workload.pods == 1 else f"{workload.pods} pods"
    return f"{workload.namespace} {workload.owner}: {pods}, {asks}{_HOW[workload.how]}"
