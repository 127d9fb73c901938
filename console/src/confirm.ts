/** Proofs that a service asks for in between: that it is still the user, or their second factor. */
import { explain } from "./errors.ts";
import { FactorStatus, type User } from "./gen/signgate/auth/v1/user_pb.ts";
import { session } from "./session.ts";

export type Proof = "identity" | "factor";

const ASKED: Readonly<Record<string, Proof>> = {
  REAUTHENTICATION_NEEDED: "identity",
  INSUFFICIENT_AAL: "factor",
};
/** A call may need each of them once. */
const MOST = 2;

/** What is asked of the user now; `parts/confirm.tsx` shows it. */
class Confirmation {
  wanted: Proof | undefined;
  #answer: ((given: boolean) => void) | undefined;
  #listeners = new Set<() => void>();

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Whether the user gave the proof. One question at a time: an older one counts as declined. */
  ask(proof: Proof): Promise<boolean> {
    this.#answer?.(false);
    this.#show(proof);
    return new Promise((resolve) => (this.#answer = resolve));
  }

  answer(given: boolean): void {
    this.#answer?.(given);
    this.#answer = undefined;
    this.#show(undefined);
  }

  #show(proof: Proof | undefined): void {
    this.wanted = proof;
    for (const listener of this.#listeners) listener();
  }
}

export const confirmation = new Confirmation();

/** Do something; where a service asks for a proof, ask the user and do it once more. */
export async function withProof<T>(act: () => Promise<T>): Promise<T> {
  for (let asked = 0; ; asked += 1) {
    try {
      return await act();
    } catch (error) {
      const proof = ASKED[explain(error).reason];
      if (!proof || asked === MOST || !(await given(proof))) throw error;
    }
  }
}

async function given(proof: Proof): Promise<boolean> {
  if (session.state.status !== "in") return false;
  if (proof === "factor") {
    // The tokens may be from before a change of the factors.
    await session.renew();
    if (!proved(signedIn())) return true;
  }
  return confirmation.ask(proof);
}

/** A verified second factor of the account. */
export function proved(user: User | undefined) {
  return user?.factors.find((factor) => factor.status === FactorStatus.VERIFIED);
}

function signedIn(): User | undefined {
  return session.state.status === "in" ? session.state.user : undefined;
}
