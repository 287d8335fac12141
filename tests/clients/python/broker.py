"""A client of the token broker that needs no generated code: the server describes itself by gRPC reflection."""

import json

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "tokenbroker.v1.TokenBrokerService"

# What may be asked twice. A second BeginOAuth, for one, would be a second consent.
REPEATABLE = ["GetCredential", "Refresh", "ListCredentials", "ListProviders", "GetFlow", "RenewLease", "CompleteOAuth"]
# Each replica in turn; a replica that is going away, or a refresh that is under way, is no reason to give up at once.
CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": method} for method in REPEATABLE],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class _ApiKey(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends the API key with every call, reflection included."""

    def __init__(self, key):
        self._metadata = ("authorization", f"Bearer {key}")

    def _with_key(self, details):
        return details._replace(metadata=[*(details.metadata or ()), self._metadata])

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with_key(details), request)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(self._with_key(details), requests)


class Broker:
    """Has a method for each RPC. Arguments are the request's fields; nested messages are dictionaries.

        broker = Broker("127.0.0.1:50051", api_key)
        answer = broker.GetCredential(key={"provider": "google", "user_id": "alice", "service": "gmail"})
        if answer.WhichOneof("result") == "credential":
            use(answer.credential.access_token)
    """

    def __init__(self, address, api_key, timeout=30, options=()):
        options = [("grpc.service_config", json.dumps(CONFIG)), *options]
        # In production: grpc.secure_channel. An API key must not cross a network in the clear.
        channel = grpc.intercept_channel(grpc.insecure_channel(address, options), _ApiKey(api_key))
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for method in pool.FindServiceByName(SERVICE).methods:
            setattr(self, method.name, self._call(channel, method, timeout))

    @staticmethod
    def _call(channel, method, timeout):
        request_class = GetMessageClass(method.input_type)
        call = channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return lambda **fields: call(request_class(**fields), timeout=timeout)


def name_of(message, field):
    """The name of an enum field's value, without the enum's own name: REVOKED."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[getattr(message, field)].name.removeprefix(prefix)
