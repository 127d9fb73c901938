import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, date, duration, milliseconds, timestamp, utcMidnight } from "../src/format.ts";

test("durations show their two largest units and round up, so that 0 s means over", () => {
  const cases = [
    [-5, "0 s"],
    [0, "0 s"],
    [0.2, "1 s"],
    [59.9, "1 min 00 s"],
    [61, "1 min 01 s"],
    [3600, "1 h 0 min"],
    [86_399, "23 h 59 min"],
    [90_000, "1 d 1 h"],
  ];
  for (const [seconds, text] of cases) assert.equal(duration(seconds), text);
});

test("timestamps come back as they went, also before 1970", () => {
  for (const iso of ["2026-01-02T03:04:05.678Z", "1969-12-31T23:59:59.250Z", "1970-01-01T00:00:00.000Z"]) {
    const wire = timestamp(new Date(iso));
    assert.ok(wire.nanos >= 0);
    assert.equal(date(wire).toISOString(), iso);
  }
});

test("the UTC day begins at UTC midnight, whatever the reader's zone", () => {
  assert.equal(utcMidnight(new Date("2026-03-29T23:30:00-05:00")).toISOString(), "2026-03-30T00:00:00.000Z");
});

test("latencies keep a figure that says something", () => {
  assert.deepEqual([0, 0.5, 9.95, 12.4, 999, 1500].map(milliseconds), [
    "0 ms",
    "0.5 ms",
    "9.9 ms",
    "12 ms",
    "999 ms",
    "1.50 s",
  ]);
});

test("a moment that never was is never", () => {
  assert.equal(ago(undefined, new Date()), "never");
  assert.equal(ago(timestamp(new Date(0)), new Date(30_000)), "just now");
  assert.equal(ago(timestamp(new Date(0)), new Date(7_200_000)), "2 h ago");
});
