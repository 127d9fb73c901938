// A proxy-wasm plug-in of the edge: bounds what one client address holds at the same time.
//
// As an HTTP filter it counts requests in flight and answers 429 beyond the limit; as a network filter it
// counts connections and closes those beyond the limit. Its configuration is the limit, as decimal digits; an
// HTTP filter's may go on with path prefixes and how many requests below each an address may have in flight
// ("1024 /console/ 16 /auth/v1/ 32"). Such a request counts for as many as make the two limits one.
// An address is a whole IPv4 address or the first 64 bits of an IPv6 address, which one customer gets.
// Each worker thread of Envoy has its own instance and counts by itself, without a lock.
//
// Memory: two map entries for each open request or connection, none for a finished one.

// --- What the host offers (proxy-wasm ABI 0.2.1) ---------------------------------------------------------

@external("env", "proxy_get_property")
declare function getProperty(path: usize, pathSize: usize, value: usize, valueSize: usize): u32;
@external("env", "proxy_get_buffer_bytes")
declare function getBufferBytes(kind: u32, start: u32, most: u32, value: usize, valueSize: usize): u32;
@external("env", "proxy_send_local_response")
declare function sendLocalResponse(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize,
  headers: usize, headersSize: usize, grpcStatus: u32,
): u32;
@external("env", "proxy_close_stream")
declare function closeStream(kind: u32): u32;

const OK: u32 = 0;
const CONTINUE: u32 = 0;
const STOP: u32 = 1;
const PLUGIN_CONFIGURATION: u32 = 7;
const DOWNSTREAM: u32 = 2;
const RESOURCE_EXHAUSTED: u32 = 8;
const SOURCE_ADDRESS = String.UTF8.encode("source\0address");
const PATH = String.UTF8.encode("request\0path");
const DETAILS = String.UTF8.encode("too_many_in_flight");
const NO_HEADERS = new ArrayBuffer(4); // their number
const RESULT = new StaticArray<usize>(2); // where the host writes an address and a length

function at(buffer: ArrayBuffer): usize {
  return changetype<usize>(buffer);
}

// --- What is counted -------------------------------------------------------------------------------------

let limit: u32 = 0;
const prefixes: ArrayBuffer[] = [];
const weights: u32[] = []; // what a request below each prefix counts for
const held = new Map<u64, u32>(); // address to how many
const holders = new Map<u32, u64>(); // context to its address
const heavies = new Map<u32, u32>(); // context to what it counts for, if that is more than 1

/** Counts so many more for the caller's address. False: that is more than it may hold, and none is counted. */
function take(context: u32, weight: u32): bool {
  const address = caller();
  const count = held.has(address) ? held.get(address) : 0;
  if (count + weight > limit) return false;
  held.set(address, count + weight);
  holders.set(context, address);
  if (weight > 1) heavies.set(context, weight);
  return true;
}

/** What a request counts for, by its path. */
function weight(): u32 {
  if (!prefixes.length) return 1;
  const value = changetype<usize>(RESULT);
  if (getProperty(at(PATH), PATH.byteLength, value, value + sizeof<usize>()) != OK) return 1;
  const start = RESULT[0];
  const size = RESULT[1];
  let found: u32 = 1;
  for (let n = 0; n < prefixes.length; n++) {
    const prefix = prefixes[n];
    if (size < <usize>prefix.byteLength || memory.compare(start, at(prefix), prefix.byteLength)) continue;
    found = weights[n];
    break;
  }
  heap.free(start);
  return found;
}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  if (take(context, weight())) return CONTINUE;
  // The body is the edge's own: see REPLIES in render.py.
  sendLocalResponse(
    429, at(DETAILS), DETAILS.byteLength, 0, 0, at(NO_HEADERS), NO_HEADERS.byteLength, RESOURCE_EXHAUSTED,
  );
  return STOP;
}

export function proxy_on_new_connection(context: u32): u32 {
  if (take(context, 1)) return CONTINUE;
  closeStream(DOWNSTREAM);
  return STOP;
}

export function proxy_on_delete(context: u32): void {
  if (!holders.has(context)) return; // was refused
  const address = holders.get(context);
  holders.delete(context);
  const count = held.get(address);
  const weight = heavies.has(context) ? heavies.get(context) : 1;
  heavies.delete(context);
  if (count > weight) held.set(address, count - weight);
  else held.delete(address);
}

// --- The caller's address --------------------------------------------------------------------------------

/**
 * The address that Envoy determined ("192.0.2.1:4711", "[2001:db8::1]:4711"): the connection's own, or the
 * one that trusted load balancers name. Peers without one (Unix sockets) share a count.
 */
function caller(): u64 {
  const value = changetype<usize>(RESULT);
  const status = getProperty(
    at(SOURCE_ADDRESS), SOURCE_ADDRESS.byteLength, value, value + sizeof<usize>(),
  );
  if (status != OK) return 0;
  const start = RESULT[0];
  const end = start + RESULT[1];
  const key = load<u8>(start) == 0x5b ? ipv6(start + 1, end) : ipv4(start, end);
  heap.free(start);
  return key;
}

/** Below 2^32, where no IPv6 network that is routed begins. */
function ipv4(from: usize, end: usize): u64 {
  let address: u64 = 0;
  let part: u64 = 0;
  for (let i = from; i < end; i++) {
    const byte = load<u8>(i);
    if (byte == 0x2e) { // .
      address = (address << 8) | part;
      part = 0;
    } else if (byte >= 0x30 && byte <= 0x39) {
      part = part * 10 + (byte - 0x30);
    } else break; // the port
  }
  return (address << 8) | part;
}

const groups = new StaticArray<u16>(8);

/** The first four groups; for an IPv4 address in IPv6's form (::ffff:192.0.2.1), that IPv4 address. */
function ipv6(from: usize, end: usize): u64 {
  groups.fill(0);
  let count = 0;
  let gap = -1; // before which group "::" stands
  let group: u16 = 0;
  let begin = from; // of this group
  for (let i = from; i <= end && count < 8; i++) {
    const byte: u8 = i < end ? load<u8>(i) : 0x5d;
    if (byte == 0x2e) return ipv4(begin, end); // dots appear in IPv4's part alone
    const last = byte == 0x5d || byte == 0x25; // ] or a zone
    if (byte == 0x3a || last) { // :
      if (i > begin) groups[count++] = group;
      if (!last && i + 1 < end && load<u8>(i + 1) == 0x3a) gap = count;
      group = 0;
      begin = i + 1;
      if (last) break;
    } else {
      group = (group << 4) | (byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x57);
    }
  }
  const zeros = gap < 0 ? 0 : 8 - count;
  let network: u64 = 0;
  for (let n = 0; n < 4; n++) {
    const value = gap < 0 || n < gap ? groups[n] : n < gap + zeros ? 0 : groups[n - zeros];
    network = (network << 16) | value;
  }
  return network;
}

// --- What else the host calls ----------------------------------------------------------------------------

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: usize): usize {
  return heap.alloc(size);
}

export function proxy_on_context_create(context: u32, parent: u32): void {}

export function proxy_on_vm_start(context: u32, size: u32): bool {
  return true;
}

/** False, which stops Envoy's start: the configuration is not what the top of this file says. */
export function proxy_on_configure(context: u32, size: u32): bool {
  const value = changetype<usize>(RESULT);
  if (getBufferBytes(PLUGIN_CONFIGURATION, 0, size, value, value + sizeof<usize>()) != OK) return false;
  const words = String.UTF8.decodeUnsafe(RESULT[0], RESULT[1]).split(" ");
  heap.free(RESULT[0]);
  limit = <u32>U64.parseInt(words[0]);
  if (!limit || words.length % 2 == 0) return false;
  for (let n = 1; n < words.length; n += 2) {
    const most = <u32>U64.parseInt(words[n + 1]);
    if (!most || most > limit) return false;
    prefixes.push(String.UTF8.encode(words[n]));
    weights.push(limit / most);
  }
  return true;
}
