import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { explain } from "../src/errors.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.ts";

const refusal = (code, reason, ...details) =>
  new ConnectError("The words of the service.", code, undefined, [
    { desc: ErrorInfoSchema, value: { reason, domain: "signgate" } },
    ...details,
  ]);

test("a refusal keeps the service's reason, words, wait, fields and request id", () => {
  const trouble = explain(
    refusal(
      Code.InvalidArgument,
      "ROOM_URL_HOST",
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 2n, nanos: 1 } } },
      { desc: BadRequestSchema, value: { fieldViolations: [{ field: "room_url", description: "not there" }] } },
      { desc: RequestInfoSchema, value: { requestId: "r-1" } },
    ),
  );
  assert.equal(trouble.reason, "ROOM_URL_HOST");
  assert.equal(trouble.message, "The words of the service.");
  assert.match(trouble.advice, /@name/);
  assert.equal(trouble.retryAfter, 3);
  assert.equal(trouble.fields.get("room_url"), "not there");
  assert.equal(trouble.requestId, "r-1");
  assert.equal(trouble.signedOut, false);
});

test("a quota that is used up says where more is", () => {
  assert.match(explain(refusal(Code.ResourceExhausted, "QUOTA_EXHAUSTED")).advice, /midnight UTC.*API keys/);
});

test("only a credential that no longer holds signs out", () => {
  for (const reason of ["TOKEN_EXPIRED", "SESSION_REVOKED", "CREDENTIAL_MALFORMED"]) {
    assert.equal(explain(refusal(Code.Unauthenticated, reason)).signedOut, true, reason);
  }
  assert.equal(explain(refusal(Code.Unauthenticated, "INVALID_CREDENTIALS")).signedOut, false);
  assert.equal(explain(refusal(Code.Unauthenticated, "INSUFFICIENT_AAL")).signedOut, false);
  assert.equal(explain(refusal(Code.Unavailable, "TOKEN_EXPIRED")).signedOut, false);
});

test("an error without details is named by its status and takes its id from the header", () => {
  const trouble = explain(new ConnectError("", Code.DeadlineExceeded, { "x-request-id": "r-2" }));
  assert.equal(trouble.reason, "DEADLINE_EXCEEDED");
  assert.equal(trouble.requestId, "r-2");
  assert.ok(trouble.message && trouble.advice);
});

test("a server that can't be reached is told from one that fails", () => {
  assert.equal(explain(new TypeError("Failed to fetch")).reason, "OFFLINE");
  assert.equal(explain(new Error("a bug of ours")).reason, "UNKNOWN");
});
