/** Second factors: set one up, see them, remove one. */
import { useState } from "preact/hooks";
import { account } from "../api.ts";
import { moment } from "../format.ts";
import type { EnrollFactorResponse } from "../gen/signgate/auth/v1/auth_pb.ts";
import { FactorStatus, type Factor } from "../gen/signgate/auth/v1/user_pb.ts";
import { useAction } from "../hooks.ts";
import { CodeField } from "../pages/entry.tsx";
import { session } from "../session.ts";
import { Button, Card, Copy, Dialog, ErrorNote, onSubmit } from "./basics.tsx";

export function Factors({ factors, onChange }: { factors: Factor[]; onChange: () => void }) {
  const [enrolled, setEnrolled] = useState<EnrollFactorResponse>();
  const [recovery, setRecovery] = useState<string[]>([]);
  const verified = factors.filter((factor) => factor.status === FactorStatus.VERIFIED);
  const start = useAction(async () => {
    // What an earlier visit left unproved would keep its name.
    for (const { id } of factors.filter((factor) => !verified.includes(factor))) {
      await account.unenrollFactor({ factorId: id });
    }
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
  return (
    <Card
      title="Second factor"
      aside={!verified.length && <Button kind="quiet" busy={start.busy} onClick={() => void start.run()}>Set up</Button>}
    >
      {verified.length ? (
        <ul class="earlier">
          {verified.map((factor) => (
            <li key={factor.id}>
              <span>{factor.friendlyName || "Authenticator app"}</span>
              <span class="fine">since {moment(factor.createdAt)}</span>
              <Button kind="quiet" busy={remove.busy} onClick={() => void remove.run(factor.id)}>Remove</Button>
            </li>
          ))}
        </ul>
      ) : (
        <p class="fine">
          None. With one, signing in here asks for a code of your authenticator app as well, and password, address and
          deletion can't be touched without it.
        </p>
      )}
      <ErrorNote trouble={start.trouble ?? remove.trouble ?? cancel.trouble} />
      {enrolled && (
        <Enrol
          enrolled={enrolled}
          onCancel={() => void cancel.run()}
          onDone={(codes) => {
            setEnrolled(undefined);
            setRecovery(codes);
            onChange();
          }}
        />
      )}
      {recovery.length > 0 && <Recovery codes={recovery} onClose={() => setRecovery([])} />}
    </Card>
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

/** Shown this once: left by its button alone. */
function Recovery({ codes, onClose }: { codes: string[]; onClose: () => void }) {
  return (
    <Dialog title="Recovery codes">
      <p>Each stands in once for your app, should you lose it. Store them now: they are shown this once.</p>
      <pre class="signed-url" data-testid="recovery-codes">{codes.join("\n")}</pre>
      <Copy text={codes.join("\n")} what="the recovery codes" />
      <div class="dialog-end"><Button kind="primary" onClick={onClose}>I have stored them</Button></div>
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
