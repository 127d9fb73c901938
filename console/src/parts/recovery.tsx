/** Recovery codes: how many are left, and new ones. */
import { account } from "../api.ts";
import { moment } from "../format.ts";
import { useAction, useLoad } from "../hooks.ts";
import { Button, Copy, Dialog, ErrorNote, Note } from "./basics.tsx";

const FEW = 3;

/** `turn` changes when codes were made elsewhere on the page. */
export function RecoveryLine({ turn, onMade }: { turn: number; onMade: (codes: string[]) => void }) {
  const { data, trouble, reload } = useLoad((signal) => account.getRecoveryCodes({}, { signal }), [turn]);
  const make = useAction(async () => {
    const { recoveryCodes } = await account.regenerateRecoveryCodes({});
    onMade(recoveryCodes);
    reload();
  });
  return (
    <>
      {data && data.total > 0 && (
        <p class="recovery" data-testid="recovery-left">
          <span>{data.left} of {data.total} recovery codes left, made {moment(data.createdAt)}</span>
          <Button kind="quiet" busy={make.busy} onClick={() => void make.run()}>Make new ones</Button>
        </p>
      )}
      {data && data.total > 0 && data.left <= FEW && (
        <Note kind="bad">Few recovery codes are left. Make new ones before you need the last.</Note>
      )}
      <ErrorNote trouble={trouble ?? make.trouble} />
    </>
  );
}

/** Shown this once: left by its button alone. */
export function RecoveryCodes({ codes, onClose }: { codes: string[]; onClose: () => void }) {
  const text = codes.join("\n");
  const download = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/plain" }));
    link.download = "signgate-recovery-codes.txt";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <Dialog title="Recovery codes">
      <p>
        Each stands in once for your second factor, should you lose it. Store them now: they are shown this once, and
        any that you had before are void.
      </p>
      <pre class="signed-url" data-testid="recovery-codes">{text}</pre>
      <div class="row">
        <Copy text={text} what="the recovery codes" />
        <Button kind="quiet" icon="download" onClick={download}>Download</Button>
      </div>
      <div class="dialog-end"><Button kind="primary" onClick={onClose}>I have stored them</Button></div>
    </Dialog>
  );
}
