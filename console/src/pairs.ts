/** Metadata of keys as people type and read it: `name=value`, one a line. */
import { Code, ConnectError } from "@connectrpc/connect";

/** The pairs of a text; empty lines are skipped. Throws a `ConnectError` that names the line if one is not a pair. */
export function pairs(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const line of text.split("\n").map((each) => each.trim())) {
    if (!line) continue;
    const equals = line.indexOf("=");
    const name = line.slice(0, equals).trim();
    const value = line.slice(equals + 1).trim();
    if (equals < 1 || !value) throw new ConnectError(`“${line}” is not a pair: write name=value.`, Code.InvalidArgument);
    found[name] = value;
  }
  return found;
}

/** Each pair as `name=value`, by name. */
export function written(metadata: Readonly<Record<string, string>>): string[] {
  return Object.keys(metadata).sort().map((name) => `${name}=${metadata[name]}`);
}
