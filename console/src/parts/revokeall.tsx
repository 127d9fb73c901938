/** Ends all API keys at once: on the page of keys, and offered when the password has changed. */
import { useState } from "preact/hooks";
import { keys } from "../api.ts";
import { count } from "../format.ts";
import { useAction } from "../hooks.ts";
import { Button, Dialog, ErrorNote, Note } from "./basics.tsx";

/** `onRevoked` is told how many keys there were. */
export function RevokeAll({ kind = "plain", onRevoked }: { kind?: "plain" | "quiet"; onRevoked?: () => void }) {
  const [asking, setAsking] = useState(false);
  const [revoked, setRevoked] = useState<number>();
  const revoke = useAction(async () => {
    setRevoked((await keys.revokeAllKeys({})).revokedCount);
    setAsking(false);
    onRevoked?.();
  });
  return (
    <>
      {revoked === undefined
        ? <Button kind={kind} onClick={() => setAsking(true)}>Revoke all API keys</Button>
        : <Note kind="good">Revoked keys: {count(revoked)}.</Note>}
      {asking && (
        <Dialog title="Revoke all API keys?" onCancel={() => setAsking(false)}>
          <p>
            All API keys of this account will be refused everywhere within a second: programs that use them stop
            working. This can't be undone.
          </p>
          <ErrorNote trouble={revoke.trouble} />
          <div class="dialog-end">
            <Button onClick={() => setAsking(false)}>Keep them</Button>
            <Button kind="danger" busy={revoke.busy} onClick={() => void revoke.run()}>Revoke all</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
