/** gRPC-web to the edge that served this page, and to nowhere else. */
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { Interceptor, Transport } from "@connectrpc/connect";

const TIMEOUT_MS = 15_000;

export function transport(...interceptors: Interceptor[]): Transport {
  return createGrpcWebTransport({ baseUrl: location.origin, defaultTimeoutMs: TIMEOUT_MS, interceptors });
}
