/** Second factors: set one up, see them, remove one. */
import { useState } from "preact/hooks";
import { account } from "../api.ts";
import { moment } from "../format.ts";
import type { EnrollFactorResponse } from "../gen/signgate/auth/v1/auth_pb.ts";
import { FactorStatus, type Factor } from "../gen/signgate/auth/v1/user_pb.ts";
import { useAction } from "../hooks.ts";
import { answer, offered, relyingParty } from "../passkeys.ts";
import { session } from "../session.ts";
import { Button, Card, CodeField, Copy, Dialog, ErrorNote, Field, onSubmit } from "./basics.tsx";
import { RecoveryCodes, RecoveryLine } from "./recovery.tsx";
import { calledFactor } from "./secondfactor.tsx";

export function Factors({ factors, onChange }: { factors: Factor[]; onChange: () => void }) {
  const [enrolled, setEnrolled] = useState<EnrollFactorResponse>();
  const [naming, setNaming] = useState(false);
  const [recovery, setRecovery] = useState<string[]>([]);
  const [turn, setTurn] = useState(0);
  const verified = factors.filter((factor) => factor.status === FactorStatus.VERIFIED);
  /** What an earlier visit left unproved would keep its name. */
  const clean = async () => {
    for (const { id } of factors.filter((factor) => !verified.includes(factor))) {
      await account.unenrollFactor({ factorId: id });
    }
  };
  const start = useAction(async () => {
    await clean();
    setEnrolled(await account.enrollFactor({ factorType: "totp" }));
  });
  const remove = useAction(async (factorId: string) => {
    await account.unenrollFactor({ factorId });
    await session.renew();
    onChange();
  });
  const cancel = useAction(async () => {
    const factorId = enrolled?.factor?.id ?? "";
    setEnrolled(undefined);
    await account.unenrollFactor({ factorId });
  });
  const done = (codes: string[]) => {
    setEnrolled(undefined);
    setNaming(false);
    setRecovery(codes);
    setTurn(turn + 1);
    onChange();
  };
  return (
    <Card
      title="Second factor"
      aside={
        <span>
          {!verified.some((factor) => factor.factorType === "totp") && (
            <Button kind="quiet" busy={start.busy} onClick={() => void start.run()}>Set up an app</Button>
          )}
          {offered() && <Button kind="quiet" onClick={() => setNaming(true)}>Add a passkey</Button>}
        </span>
      }
    >
      {verified.length ? (
        <>
          <ul class="earlier">
            {verified.map((factor) => (
              <li key={factor.id}>
                <span>{calledFactor(factor)}</span>
                <span class="fine">since {moment(factor.createdAt)}</span>
                <Button
                  kind="quiet"
                  label={`Remove ${calledFactor(factor)}`}
                  busy={remove.busy}
                  onClick={() => void remove.run(factor.id)}
                >
                  Remove
                </Button>
              </li>
            ))}
          </ul>
          <RecoveryLine turn={turn} onMade={setRecovery} />
        </>
      ) : (
        <p class="fine">
          None. With one, signing in asks for a code of your authenticator app or for your passkey as well. API keys, the
          password, the address and the account can't be changed without it.
        </p>
      )}
      <ErrorNote trouble={start.trouble ?? remove.trouble ?? cancel.trouble} />
      {enrolled && <Enrol enrolled={enrolled} onCancel={() => void cancel.run()} onDone={done} />}
      {naming && (
        <NewPasskey
          name={freeName(factors.map((factor) => factor.friendlyName))}
          before={clean}
          onCancel={() => setNaming(false)}
          onDone={done}
        />
      )}
      {recovery.length > 0 && <RecoveryCodes codes={recovery} onClose={() => setRecovery([])} />}
    </Card>
  );
}

function freeName(taken: string[]): string {
  let name = "Passkey";
  for (let number = 2; taken.includes(name); number++) name = `Passkey ${number}`;
  return name;
}

interface NewPasskeyProps {
  name: string;
  before: () => Promise<void>;
  onCancel: () => void;
  onDone: (recoveryCodes: string[]) => void;
}

function NewPasskey({ name: suggested, before, onCancel, onDone }: NewPasskeyProps) {
  const [name, setName] = useState(suggested);
  const create = useAction(async () => {
    await before();
    const { factor } = await account.enrollFactor({ factorType: "webauthn", friendlyName: name.trim() });
    const factorId = factor?.id ?? "";
    try {
      const challenge = await account.challengeFactor({ factorId, relyingParty: relyingParty() });
      const passkey = await answer(challenge);
      const given = await account.verifyFactor({ factorId, challengeId: challenge.challengeId, passkey });
      if (given.session) session.begin(given.session);
      onDone(given.recoveryCodes);
    } catch (error) {
      await account.unenrollFactor({ factorId }).catch(() => undefined); // the next visit tries again
      throw error;
    }
  });
  return (
    <Dialog title="Add a passkey" onCancel={onCancel}>
      <p>Your browser asks for a security key, your phone or this device. Your other sessions end.</p>
      <form onSubmit={onSubmit(() => void create.run())}>
        <Field label="Name" hint="So that you know it again." invalid={create.trouble?.fields.has("friendly_name")}>
          {(attributes) => (
            <input
              {...attributes}
              name="name"
              required
              maxLength={64}
              autocomplete="off"
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          )}
        </Field>
        <ErrorNote trouble={create.trouble} />
        <div class="dialog-end">
          <Button onClick={onCancel}>Cancel</Button>
          <Button kind="primary" submit busy={create.busy}>Create the passkey</Button>
        </div>
      </form>
    </Dialog>
  );
}

interface EnrolProps {
  enrolled: EnrollFactorResponse;
  onCancel: () => void;
  onDone: (recoveryCodes: string[]) => void;
}

function Enrol({ enrolled, onCancel, onDone }: EnrolProps) {
  const [code, setCode] = useState("");
  const prove = useAction(async () => {
    const factorId = enrolled.factor?.id ?? "";
    const { challengeId } = await account.challengeFactor({ factorId });
    const answer = await account.verifyFactor({ factorId, challengeId, code: code.trim() });
    if (answer.session) session.begin(answer.session);
    onDone(answer.recoveryCodes);
  });
  return (
    <Dialog title="Set up a second factor" onCancel={onCancel}>
      <p>Scan this with your authenticator app, then enter the code that it shows. Your other sessions end.</p>
      <QrCode svg={enrolled.qrCode} />
      <details>
        <summary>Enter it by hand</summary>
        <p><code data-testid="totp-secret">{enrolled.secret}</code></p>
        <Copy text={enrolled.secret} what="the secret" />
      </details>
      <form onSubmit={onSubmit(() => void prove.run())}>
        <CodeField value={code} onInput={setCode} />
        <ErrorNote trouble={prove.trouble} />
        <div class="dialog-end">
          <Button onClick={onCancel}>Cancel</Button>
          <Button kind="primary" submit busy={prove.busy}>Turn it on</Button>
        </div>
      </form>
    </Dialog>
  );
}

/** The service's picture, drawn anew from its one path: no text of anybody's becomes HTML here. */
function QrCode({ svg }: { svg: string }) {
  const path = /<path[^>]* d="([MmhvHVzZ0-9.\- ]+)"/.exec(svg)?.[1];
  const side = Number(/ width="(\d+)"/.exec(svg)?.[1]);
  const scale = Number(/scale\((\d+)\)/.exec(svg)?.[1] ?? 1);
  if (!path || !side) return null;
  return (
    <svg class="qr" width={side} height={side} viewBox={`0 0 ${side} ${side}`} role="img" aria-label="QR code of the secret">
      <rect width={side} height={side} fill="#fff" />
      <path transform={`scale(${scale})`} stroke="#000" d={path} />
    </svg>
  );
}
