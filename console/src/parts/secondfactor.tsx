/** The second factor at sign-in: a passkey, an app's code, or a recovery code. */
import { useState } from "preact/hooks";
import { FactorStatus, type Factor, type Session, type User } from "../gen/signgate/auth/v1/user_pb.ts";
import { useAction } from "../hooks.ts";
import { answer, offered, relyingParty } from "../passkeys.ts";
import { accounts } from "../session.ts";
import { Button, CodeField, ErrorNote, onSubmit } from "./basics.tsx";

export function verifiedFactors(user: User | undefined): Factor[] {
  return user?.factors.filter((factor) => factor.status === FactorStatus.VERIFIED) ?? [];
}

/** What its owner calls it. */
export function calledFactor({ friendlyName, factorType }: Factor): string {
  return friendlyName || (factorType === "webauthn" ? "Passkey" : "Authenticator app");
}

type Way = "passkey" | "app" | "recovery";
const WAYS: Readonly<Record<Way, { means: string; lead: string }>> = {
  passkey: { means: "Use a passkey", lead: "Your browser asks for your security key, your phone or this device." },
  app: { means: "Use the app's code", lead: "Enter the code that your app shows." },
  recovery: { means: "Use a recovery code", lead: "Enter one of the recovery codes that you stored; it works once." },
};

interface SecondFactorProps {
  user: User | undefined;
  /** The access token of the session that is to be raised. */
  token: () => Promise<string>;
  onProved: (raised: Session) => void;
  action?: string;
  onLeave: () => void;
}

/** The session is there, but of one factor; what it may not do without the second, it asks for here. */
export function SecondFactor({ user, token, onProved, action = "Sign in", onLeave }: SecondFactorProps) {
  const factors = verifiedFactors(user);
  const passkeys = offered() ? factors.filter((factor) => factor.factorType === "webauthn") : [];
  const app = factors.find((factor) => factor.factorType === "totp");
  const ways: Way[] = [...(passkeys.length ? ["passkey" as const] : []), ...(app ? ["app" as const] : []), "recovery"];
  const [way, setWay] = useState<Way>(ways[0] ?? "recovery");
  const [code, setCode] = useState("");
  const called = async () => ({ headers: { authorization: `Bearer ${await token()}` } });
  const done = ({ session: raised }: { session?: Session | undefined }) => {
    if (raised) onProved(raised);
  };
  const prove = useAction(async () => {
    const typed = code.trim();
    if (way === "recovery") return done(await accounts.useRecoveryCode({ code: typed }, await called()));
    const factorId = app?.id ?? "";
    const { challengeId } = await accounts.challengeFactor({ factorId }, await called());
    done(await accounts.verifyFactor({ factorId, challengeId, code: typed }, await called()));
  });
  const use = useAction(async (factorId: string) => {
    const challenge = await accounts.challengeFactor({ factorId, relyingParty: relyingParty() }, await called());
    const passkey = await answer(challenge);
    done(await accounts.verifyFactor({ factorId, challengeId: challenge.challengeId, passkey }, await called()));
  });
  return (
    <form onSubmit={onSubmit(() => void (way === "passkey" ? use.run(passkeys[0]?.id ?? "") : prove.run()))}>
      <h2>Second factor</h2>
      <p>{WAYS[way].lead}</p>
      {way === "passkey"
        ? passkeys.map((factor) => (
            <Button key={factor.id} kind="primary" busy={use.busy} onClick={() => void use.run(factor.id)}>
              Use {calledFactor(factor)}
            </Button>
          ))
        : <CodeField key={way} value={code} onInput={setCode} label={way === "recovery" ? "Recovery code" : "Code"} />}
      <ErrorNote trouble={way === "passkey" ? use.trouble : prove.trouble} />
      {way !== "passkey" && <Button kind="primary" submit busy={prove.busy}>{action}</Button>}
      <p class="ways">
        {ways.filter((other) => other !== way).map((other) => (
          <Button
            key={other}
            kind="quiet"
            onClick={() => {
              setWay(other);
              setCode("");
              prove.clear();
              use.clear();
            }}
          >
            {WAYS[other].means}
          </Button>
        ))}
        <Button kind="quiet" onClick={onLeave}>{action === "Sign in" ? "Start again" : "Cancel"}</Button>
      </p>
    </form>
  );
}
