"""What a kubelet and a DRA driver say to each other, as gRPC has it.

Sources: the fields and their numbers in k8s.io/kubelet/pkg/apis, pluginregistration/v1/api.proto
and dra/{v1,v1beta1}/api.proto. Here they are tables, from which protobuf makes the classes. v1 and
v1beta1 differ in the name of their package, and in fields that no test uses.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: A message by field: its number and type: a scalar, another message, or of many "[...]". Maps are
#: from a string to a message, "{...}".
Fields = Mapping[str, tuple[int, str]]

REGISTRATION: Final = "pluginregistration"
REGISTRATION_MESSAGES: Final[Mapping[str, Fields]] = {
    "InfoRequest": {},
    "PluginInfo": {
        "type": (1, "string"),
        "name": (2, "string"),
        "endpoint": (3, "string"),
        "supported_versions": (4, "[string]"),
    },
    "RegistrationStatus": {"plugin_registered": (1, "bool"), "error": (2, "string")},
    "RegistrationStatusResponse": {},
}

#: By the name of the service as a driver registers it.
DRA: Final = {
    f"{version}.DRAPlugin": f"k8s.io.kubelet.pkg.apis.dra.{version}"
    for version in ("v1", "v1beta1")
}
DRA_MESSAGES: Final[Mapping[str, Fields]] = {
    "Claim": {"namespace": (1, "string"), "uid": (2, "string"), "name": (3, "string")},
    "Device": {
        "request_names": (1, "[string]"),
        "pool_name": (2, "string"),
        "device_name": (3, "string"),
        "cdi_device_ids": (4, "[string]"),
    },
    "NodePrepareResourcesRequest": {"claims": (1, "[Claim]")},
    "NodePrepareResourceResponse": {"devices": (1, "[Device]"), "error": (2, "string")},
    "NodePrepareResourcesResponse": {"claims": (1, "{NodePrepareResourceResponse}")},
    "NodeUnprepareResourcesRequest": {"claims": (1, "[Claim]")},
    "NodeUnprepareResourceResponse": {"error": (1, "string")},
    "NodeUnprepareResourcesResponse": {"claims": (1, "{NodeUnprepareResourceResponse}")},
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}


def _classes(package: str, messages: Mapping[str, Fields]) -> dict[str, Any]:
    """The classes of a package's messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, typed) in fields.items():
            label = _Field.LABEL_REPEATED if typed[0] in "[{" else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if typed[0] == "{":
                # A map is a repeated message of key and value (the language guide of proto3).
                entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
                entry.options.map_entry = True
                one = _Field.LABEL_OPTIONAL
                entry.field.add(name="key", number=1, label=one, type=_Field.TYPE_STRING)
                value = entry.field.add(name="value", number=2, label=one)
                _set_type(value, package, typed.strip("{}"))
                _set_type(added, package, f"{name}.{entry.name}")
            else:
                _set_type(added, package, typed.strip("[]"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def _set_type(field: descriptor_pb2.FieldDescriptorProto, package: str, typed: str) -> None:
    if typed in _SCALARS:
        field.type = _SCALARS[typed]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{typed}"


#: Package -> message -> class.
MESSAGES: Final = {
    REGISTRATION: _classes(REGISTRATION, REGISTRATION_MESSAGES),
    **{package: _classes(package, DRA_MESSAGES) for package in DRA.values()},
}

#: Package -> service -> method -> messages of the request and of the answer.
METHODS: Final = {
    REGISTRATION: (
        "Registration",
        {
            "GetInfo": ("InfoRequest", "PluginInfo"),
            "NotifyRegistrationStatus": ("RegistrationStatus", "RegistrationStatusResponse"),
        },
    ),
    **dict.fromkeys(
        DRA.values(),
        (
            "DRAPlugin",
            {
                f"Node{verb}Resources": (
                    f"Node{verb}ResourcesRequest",
                    f"Node{verb}ResourcesResponse",
                )
                for verb in ("Prepare", "Unprepare")
            },
        ),
    ),
}


def handler(package: str, functions: Mapping[str, Callable[[Any], Any]]) -> grpc.GenericRpcHandler:
    """The server's side of a package's service. functions: by method, from request to answer."""
    service, methods = METHODS[package]
    classes = MESSAGES[package]

    def unary(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda request, context: function(request)

    return grpc.method_handlers_generic_handler(
        f"{package}.{service}",
        {
            method: grpc.unary_unary_rpc_method_handler(
                unary(functions[method]),
                request_deserializer=classes[request].FromString,
                response_serializer=classes[answer].SerializeToString,
            )
            for method, (request, answer) in methods.items()
        },
    )


def call(channel: grpc.Channel, package: str, method: str, request: Any) -> Any:
    """The client's side: call a method and return its answer. Raises grpc.RpcError."""
    service, methods = METHODS[package]
    answer = MESSAGES[package][methods[method][1]]
    stub = channel.unary_unary(
        f"/{package}.{service}/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return stub(request, timeout=10)
