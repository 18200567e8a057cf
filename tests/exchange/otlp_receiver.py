"""A collector on 127.0.0.1: takes OTLP/HTTP in protobuf, keeps what it was sent."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Receiver:
    """A context manager; `received` is path -> messages, `status` what it answers with."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.received: dict[str, list[Any]] = defaultdict(list)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                message = MESSAGES[self.path]()
                message.ParseFromString(body)
                receiver.received[self.path].append(message)
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Receiver:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[dict[str, Any]]:
        found = []
        for message in self.received["/v1/traces"]:
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    found += [{"message": one, "has": attributes(one)} for one in scope.spans]
        return found

    def events(self) -> list[dict[str, Any]]:
        found = []
        for message in self.received["/v1/logs"]:
            for resource in message.resource_logs:
                for scope in resource.scope_logs:
                    found += [{"message": one, "has": attributes(one)} for one in scope.log_records]
        return found

    def metrics(self) -> dict[str, list[Any]]:
        """Name -> data points, of the last message."""
        found: dict[str, list[Any]] = {}
        for resource in self.received["/v1/metrics"][-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    found[metric.name] = list(getattr(metric, kind).data_points)
        return found

    def as_otlp_json(self) -> list[dict[str, Any]]:
        """The traces as a collector's file exporter writes them."""
        return [hexed(MessageToDict(message)) for message in self.received["/v1/traces"]]


def attributes(message: Any) -> dict[str, Any]:
    return {one.key: plain(one.value) for one in message.attributes}


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind)


def hexed(value: Any) -> Any:
    """OTLP/JSON has ids in hexadecimal where protobuf's JSON has base64."""
    import base64

    if isinstance(value, dict):
        return {
            key: base64.b64decode(one).hex()
            if key in ("traceId", "spanId", "parentSpanId")
            else hexed(one)
            for key, one in value.items()
        }
    return [hexed(one) for one in value] if isinstance(value, list) else value
