// A proxy-wasm plug-in of the edge, for unary gRPC: refuses a request that is not exactly one message.
//
// gRPC's asyncio server never answers a request that ends without a whole message, so it would take its place
// in the cluster until it times out. The buffer filter stands before this one: the body comes in one piece.

// --- What the host offers (proxy-wasm ABI 0.2.1) ---------------------------------------------------------

@external("env", "proxy_get_buffer_bytes")
declare function getBufferBytes(kind: u32, start: u32, most: u32, value: usize, valueSize: usize): u32;
@external("env", "proxy_send_local_response")
declare function sendLocalResponse(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize,
  headers: usize, headersSize: usize, grpcStatus: u32,
): u32;

const OK: u32 = 0;
const CONTINUE: u32 = 0;
const STOP: u32 = 1;
const REQUEST_BODY: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const HEAD: u32 = 5; // bytes: is it compressed, and the length, big-endian
const DETAILS = String.UTF8.encode("not_one_message");
const WORDS = String.UTF8.encode("The request is not exactly one gRPC message.");
const NO_HEADERS = new ArrayBuffer(4); // their number
const RESULT = new StaticArray<usize>(2); // where the host writes an address and a length

function at(buffer: ArrayBuffer): usize {
  return changetype<usize>(buffer);
}

// --- One message -----------------------------------------------------------------------------------------

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  return end ? refuse() : STOP; // until the body is here
}

export function proxy_on_request_body(context: u32, size: u32, end: u32): u32 {
  const value = changetype<usize>(RESULT);
  if (size < HEAD || getBufferBytes(REQUEST_BODY, 0, HEAD, value, value + sizeof<usize>()) != OK) {
    return refuse();
  }
  const length = bswap(load<u32>(RESULT[0], 1));
  heap.free(RESULT[0]);
  return length == size - HEAD ? CONTINUE : refuse();
}

/** gRPC has none in requests, and before them no body need have come. */
export function proxy_on_request_trailers(context: u32, count: u32): u32 {
  return refuse();
}

function refuse(): u32 {
  sendLocalResponse(
    400, at(DETAILS), DETAILS.byteLength, at(WORDS), WORDS.byteLength, at(NO_HEADERS), NO_HEADERS.byteLength,
    INVALID_ARGUMENT,
  );
  return STOP;
}

// --- What else the host calls ----------------------------------------------------------------------------

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: usize): usize {
  return heap.alloc(size);
}

export function proxy_on_context_create(context: u32, parent: u32): void {}
