/**
 * Who is signed in.
 *
 * The access token lives in this module's memory only. The refresh token is kept in sessionStorage, so that
 * a reload does not sign out: it is this tab's alone, ends with the tab, and is exchanged at each use, so a
 * stolen copy shows. Cookies would need a service that sets them; localStorage outlives the tab.
 */
import { createClient, type Interceptor } from "@connectrpc/connect";
import { explain } from "./errors.ts";
import { AuthService, SignOutScope } from "./gen/signgate/auth/v1/auth_pb.ts";
import type { Session, User } from "./gen/signgate/auth/v1/user_pb.ts";
import { transport } from "./transport.ts";

const KEPT = "signgate.refresh";
const RENEW_BEFORE_MS = 30_000;
const GONE = new Set([
  "REFRESH_TOKEN_NOT_FOUND",
  "REFRESH_TOKEN_ALREADY_USED",
  "SESSION_EXPIRED",
  "SESSION_REVOKED",
  "SESSION_NOT_FOUND",
  "USER_BANNED",
]);

export type State =
  | { status: "restoring" }
  | { status: "out"; notice?: string }
  | { status: "in"; user: User; notice?: string };

/** The account service, for those who are not signed in yet. */
export const accounts = createClient(AuthService, transport());

/** Where a mailed link's page leads back to. */
export const HERE = `${location.origin}/console/`;

class Sessions {
  state: State = { status: "restoring" };
  #listeners = new Set<() => void>();
  #access = { token: "", endsAt: 0 };
  #renewal: Promise<void> | undefined;

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Take up the session that a reload left, or the one that a mailed link's redirect brought. */
  async restore(): Promise<void> {
    const brought = fromLink();
    if (brought === "refused") return this.forget("That link no longer holds. Sign in, or ask for a new code.");
    if (brought) sessionStorage.setItem(KEPT, brought);
    if (!sessionStorage.getItem(KEPT)) return this.#become({ status: "out" });
    try {
      await this.#renew();
      // Told by name: the link may have come from somebody who wants us to work in their account.
      if (brought && this.state.status === "in") {
        const notice = `The link signed you in as ${this.state.user.email}.`;
        this.#become({ ...this.state, notice });
      }
    } catch (error) {
      if (this.state.status === "restoring") this.#become({ status: "out", notice: explain(error).message });
    }
  }

  /** Begin with what a sign-in or a confirmed code gave. */
  begin(session: Session): void {
    if (!session.user) throw new Error("the session names no user");
    this.#access = {
      token: session.accessToken,
      endsAt: Date.now() + Number(session.expiresIn) * 1000,
    };
    sessionStorage.setItem(KEPT, session.refreshToken);
    this.#become({ status: "in", user: session.user });
  }

  /** The profile changed: show the new one. */
  update(user: User): void {
    if (this.state.status === "in") this.#become({ ...this.state, user });
  }

  /** Forget the session here. `notice` tells the user why, when it was not their own wish. */
  forget(notice?: string): void {
    this.#access = { token: "", endsAt: 0 };
    sessionStorage.removeItem(KEPT);
    this.#become(notice ? { status: "out", notice } : { status: "out" });
  }

  /** End the session at the service, then forget it; it is forgotten also when the service can't be reached. */
  async end(scope: SignOutScope = SignOutScope.LOCAL): Promise<void> {
    try {
      const authorization = `Bearer ${await this.token()}`;
      await accounts.signOut({ scope }, { headers: { authorization } });
    } finally {
      this.forget();
    }
  }

  /** Exchange the tokens now: what they say of the account (its tier) is then up to date. */
  renew(): Promise<void> {
    return this.#renew();
  }

  /** An access token that holds for a while yet. */
  async token(): Promise<string> {
    if (Date.now() > this.#access.endsAt - RENEW_BEFORE_MS) await this.#renew();
    return this.#access.token;
  }

  /** One renewal at a time: each spends the refresh token. */
  #renew(): Promise<void> {
    this.#renewal ??= this.#exchange().finally(() => (this.#renewal = undefined));
    return this.#renewal;
  }

  async #exchange(): Promise<void> {
    const refreshToken = sessionStorage.getItem(KEPT) ?? "";
    try {
      const { session } = await accounts.refreshSession({ refreshToken });
      if (session) this.begin(session);
    } catch (error) {
      if (GONE.has(explain(error).reason)) this.forget("Your session is over. Please sign in again.");
      throw error;
    }
  }

  #become(state: State): void {
    this.state = state;
    for (const listener of this.#listeners) listener();
  }
}

export const session = new Sessions();

/** Puts the credential on every call; a session that the services refuse is forgotten. */
export const authorize: Interceptor = (next) => async (request) => {
  request.header.set("authorization", `Bearer ${await session.token()}`);
  try {
    return await next(request);
  } catch (error) {
    if (explain(error).signedOut) session.forget("Your session is over. Please sign in again.");
    throw error;
  }
};

/** The refresh token that a mailed link's redirect put into the address; taken out of it at once. */
function fromLink(): string | undefined {
  const brought = new URLSearchParams(location.hash.slice(1));
  const token = brought.get("refresh_token") ?? undefined;
  if (!token && !brought.has("error_code")) return undefined;
  history.replaceState(null, "", location.pathname);
  return token ?? "refused";
}
