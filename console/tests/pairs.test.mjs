import assert from "node:assert/strict";
import { test } from "node:test";
import { pairs, written } from "../src/pairs.ts";

test("each line is a pair, and only its first = parts it", () => {
  assert.deepEqual(pairs(" team = a \n\nexpr=x=1\r\n"), { team: "a", expr: "x=1" });
  assert.deepEqual(pairs(""), {});
});

test("a line that is no pair is named", () => {
  for (const line of ["team", "=a", "team="]) assert.throws(() => pairs(`a=b\n${line}`), new RegExp(`“${line}”`));
});

test("pairs are shown by name", () => {
  assert.deepEqual(written({ b: "2", a: "1" }), ["a=1", "b=2"]);
});
