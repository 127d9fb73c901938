/** The dialog that asks for a proof; see `confirm.ts`. */
import { useEffect, useState } from "preact/hooks";
import { account } from "../api.ts";
import { confirmation } from "../confirm.ts";
import type { Session } from "../gen/signgate/auth/v1/user_pb.ts";
import { useAction, useSession } from "../hooks.ts";
import { Password } from "../pages/entry.tsx";
import { CodeField } from "./basics.tsx";
import { SecondFactor } from "./secondfactor.tsx";
import { session } from "../session.ts";
import { Button, Dialog, ErrorNote, Note, onSubmit } from "./basics.tsx";

export function Confirm() {
  const [wanted, setWanted] = useState(confirmation.wanted);
  useEffect(() => confirmation.subscribe(() => setWanted(confirmation.wanted)), []);
  const state = useSession();
  if (state.status !== "in" || !wanted) return null;
  const done = (given: Session | undefined) => {
    if (given) session.begin(given);
    confirmation.answer(true);
  };
  const leave = () => confirmation.answer(false);
  if (wanted === "identity") return <Identity email={state.user.email} onDone={done} onLeave={leave} />;
  return (
    <Dialog title="Your second factor, please" onCancel={leave}>
      <SecondFactor user={state.user} token={() => session.token()} onProved={done} action="Go on" onLeave={leave} />
    </Dialog>
  );
}

interface IdentityProps {
  email: string;
  onDone: (given: Session | undefined) => void;
  onLeave: () => void;
}

function Identity({ email, onDone, onLeave }: IdentityProps) {
  const [password, setPassword] = useState("");
  const [nonce, setNonce] = useState("");
  const [mailed, setMailed] = useState(false);
  const mail = useAction(async () => {
    await account.reauthenticate({});
    setMailed(true);
  });
  const confirm = useAction(async () => {
    const proof = mailed ? { nonce: nonce.trim() } : { password };
    onDone((await account.confirmIdentity(proof)).session);
  });
  return (
    <Dialog title="Confirm that it is you" onCancel={onLeave}>
      <p>You signed in a while ago, and this can't be done by an old session alone.</p>
      <form onSubmit={onSubmit(() => void confirm.run())}>
        <input type="email" autocomplete="username" value={email} hidden readOnly />
        {mailed ? (
          <>
            <Note kind="info">A mail with a code is on its way.</Note>
            <CodeField value={nonce} onInput={setNonce} />
          </>
        ) : (
          <Password value={password} onInput={setPassword} autocomplete="current-password" />
        )}
        <ErrorNote trouble={confirm.trouble ?? mail.trouble} />
        <div class="dialog-end">
          {!mailed && <Button kind="quiet" busy={mail.busy} onClick={() => void mail.run()}>Mail me a code</Button>}
          <Button onClick={onLeave}>Cancel</Button>
          <Button kind="primary" submit busy={confirm.busy}>Go on</Button>
        </div>
      </form>
    </Dialog>
  );
}
