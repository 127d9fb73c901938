/** An error as a person needs it: what happened, and what to do. */
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.ts";

export interface Trouble {
  /** Stable; from the service, or made from the status where it gave none. */
  reason: string;
  /** What happened: the service's own words. */
  message: string;
  /** What to do about it; may be empty. */
  advice: string;
  /** What to quote when asking for help; may be empty. */
  requestId: string;
  /** Seconds to wait before another try makes sense. */
  retryAfter?: number;
  /** By field name, as the contract spells it. */
  fields: ReadonlyMap<string, string>;
  /** The credential no longer holds: signing in again is all that helps. */
  signedOut: boolean;
}

const SIGNED_OUT =
  /^(TOKEN_.*|CREDENTIAL_.*|SESSION_(REVOKED|EXPIRED|NOT_FOUND)|REFRESH_TOKEN_.*|UNAUTHENTICATED)$/;

const ADVICE: Readonly<Record<string, string>> = {
  QUOTA_EXHAUSTED:
    "The day's count starts again at midnight UTC. API keys have a quota of their own: make one under API keys.",
  RATE_LIMITED: "That was faster than your plan allows. Try again in a moment.",
  INVALID_CREDENTIALS: "Check the address and the password, or sign in with a code by mail.",
  EMAIL_NOT_CONFIRMED: "Enter the code that was mailed to you, or ask for a new one.",
  OTP_EXPIRED: "Codes hold for a while, for five tries, and work once. Ask for a new one.",
  WEAK_PASSWORD: "Choose a longer one that is not used anywhere else.",
  SAME_PASSWORD: "Choose one that differs from the password until now.",
  REAUTHENTICATION_NEEDED: "Try again and confirm that it is you, or sign out and in again.",
  INSUFFICIENT_AAL: "Try again and prove your second factor, or sign out and in again.",
  MFA_VERIFICATION_FAILED: "Codes hold for half a minute and work once. Wait for the next one, or use another factor.",
  MFA_WEBAUTHN_CREDENTIAL_EXISTS: "Choose another authenticator.",
  MFA_WEBAUTHN_ENROLL_NOT_ENABLED: "Use an authenticator app instead.",
  OVER_EMAIL_SEND_RATE_LIMIT: "Look for the mail that is already there, also among the spam.",
  KEY_LIMIT: "Revoke a key that you no longer need.",
  KEY_REVOKED: "Make a new key instead.",
  IDEMPOTENCY_KEY_REUSED: "Load the page again. If the key is in the list, replace it to get a secret.",
  ENGINE_UNAVAILABLE: "Choose another engine, or try again shortly.",
  SIGNUP_DISABLED: "Ask whoever runs this deployment for an account.",
  USER_BANNED: "Ask whoever runs this deployment.",
  OFFLINE: "Check the connection and try again.",
};
const ADVICE_BY_CODE: Readonly<Partial<Record<Code, string>>> = {
  [Code.Unavailable]: "Nothing was charged. Try again shortly.",
  [Code.DeadlineExceeded]: "It took too long. Try again shortly.",
  [Code.Internal]: "This is a fault on our side. Quote the request id when you report it.",
};

export function explain(error: unknown): Trouble {
  const failure = ConnectError.from(error);
  const info = failure.findDetails(ErrorInfoSchema)[0];
  const offline = !info && failure.code === Code.Unknown && failure.cause instanceof TypeError;
  const reason = offline ? "OFFLINE" : info?.reason || upperSnake(Code[failure.code]);
  const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const wait = delay && Math.ceil(Number(delay.seconds) + delay.nanos / 1e9);
  const violations = failure.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
  return {
    reason,
    message: offline ? "The server can't be reached." : failure.rawMessage || "The request failed.",
    advice: advise(reason, failure.code),
    requestId:
      failure.findDetails(RequestInfoSchema)[0]?.requestId ?? failure.metadata.get("x-request-id") ?? "",
    ...(wait !== undefined && { retryAfter: wait }),
    fields: new Map(violations.map((violation) => [violation.field, violation.description])),
    signedOut: failure.code === Code.Unauthenticated && SIGNED_OUT.test(reason),
  };
}

function advise(reason: string, code: Code): string {
  if (ADVICE[reason]) return ADVICE[reason];
  if (reason.startsWith("ROOM_URL_")) {
    return "Paste a room's address, such as https://www.tiktok.com/@name/live, or @name, or a room id.";
  }
  return ADVICE_BY_CODE[code] ?? "";
}

function upperSnake(name: string | undefined): string {
  return (name ?? "Unknown").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}
