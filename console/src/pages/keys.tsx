/** API keys: make, see once, list, find, revoke. */
import { useState } from "preact/hooks";
import { keys } from "../api.ts";
import { ago, count, moment } from "../format.ts";
import { KeyMode, KeyStatus, type Key } from "../gen/signgate/keys/v1/keys_pb.ts";
import { useAction, useLoad, useNow, useSession } from "../hooks.ts";
import { randomKey } from "../once.ts";
import { written } from "../pairs.ts";
import { Badge, Button, Card, Copy, Dialog, ErrorNote, Field, Page, Waiting } from "../parts/basics.tsx";
import { KeySearch, type KeyFilter } from "../parts/keysearch.tsx";
import { NewKey } from "../parts/newkey.tsx";
import { RevokeAll } from "../parts/revokeall.tsx";
import { session } from "../session.ts";

const PAGE = 50;
const DAY = 86_400n;
const GRACES = [
  { seconds: 0n, name: "Not at all" },
  { seconds: 3600n, name: "An hour" },
  { seconds: DAY, name: "A day" },
  { seconds: 7n * DAY, name: "A week" },
  { seconds: 30n * DAY, name: "30 days" },
];

/** A key as it leaves the service, whole, this once. */
interface Made {
  key?: Key | undefined;
  secret: string;
}

export function KeysPage() {
  const state = useSession();
  const [inactive, setInactive] = useState(false);
  const [made, setMade] = useState<Made>();
  const [ending, setEnding] = useState<Key>();
  const [replacing, setReplacing] = useState<Key>();
  const [pages, setPages] = useState(1);
  const [filter, setFilter] = useState<KeyFilter>({});
  const [ended, setEnded] = useState(false);
  const filtered = Object.keys(filter).length > 0;
  const list = useLoad(
    async (signal) => {
      const found: Key[] = [];
      let pageToken = "";
      for (let page = 0; page < pages; page++) {
        const answer = await keys.listKeys(
          { ...filter, includeInactive: inactive, pageSize: PAGE, pageToken },
          { signal },
        );
        found.push(...answer.keys);
        pageToken = answer.nextPageToken;
        if (!pageToken) break;
      }
      return { keys: found, more: pageToken !== "" };
    },
    [inactive, pages, filter],
  );
  return (
    <Page title="API keys" lead="For programs. All your keys together have a daily quota of their own, apart from yours.">
      <NewKey
        onMade={(answer) => {
          setMade(answer);
          setEnded(false);
          list.reload();
          // The first key raises the tier, which the access token names. If it fails, the next renewal tells.
          if (state.status === "in" && state.user.tier === "free") session.renew().catch(() => undefined);
        }}
      />
      <Card
        title="Your keys"
        aside={
          <label class="check">
            <input type="checkbox" checked={inactive} onChange={(event) => setInactive(event.currentTarget.checked)} />
            Show ended ones
          </label>
        }
      >
        <KeySearch
          onSearch={(wanted) => {
            setFilter(wanted);
            setPages(1);
          }}
        />
        <ErrorNote trouble={list.trouble} onRetry={list.reload} />
        {!list.data && !list.trouble && <Waiting what="your keys" />}
        {list.data && !list.trouble && (
          <KeyTable
            keys={list.data.keys}
            filtered={filtered}
            onEnd={setEnding}
            onReplace={setReplacing}
          />
        )}
        {list.data?.more && <Button kind="quiet" onClick={() => setPages(pages + 1)}>Show more</Button>}
        {list.data && (list.data.keys.length > 0 || filtered || ended) && (
          <div class="card-end">
            <RevokeAll
              onRevoked={() => {
                setEnded(true);
                list.reload();
              }}
            />
          </div>
        )}
      </Card>
      {made && <Secret made={made} onClose={() => setMade(undefined)} />}
      {replacing && (
        <Replace
          old={replacing}
          onClose={(successor) => {
            setReplacing(undefined);
            if (!successor) return;
            setMade(successor);
            list.reload();
          }}
        />
      )}
      {ending && (
        <Revoke
          doomed={ending}
          onClose={(revoked) => {
            setEnding(undefined);
            if (revoked) list.reload();
          }}
        />
      )}
    </Page>
  );
}

const STATUS: Readonly<Record<KeyStatus, { kind: "good" | "bad" | "warn" | "idle"; name: string }>> = {
  [KeyStatus.UNSPECIFIED]: { kind: "idle", name: "unknown" },
  [KeyStatus.ACTIVE]: { kind: "good", name: "active" },
  [KeyStatus.REVOKED]: { kind: "bad", name: "revoked" },
  [KeyStatus.EXPIRED]: { kind: "idle", name: "expired" },
  [KeyStatus.ROTATING]: { kind: "warn", name: "being replaced" },
};

interface KeyTableProps {
  keys: Key[];
  filtered: boolean;
  onEnd: (key: Key) => void;
  onReplace: (key: Key) => void;
}

function KeyTable({ keys: rows, filtered, onEnd, onReplace }: KeyTableProps) {
  const now = useNow(30_000);
  if (!rows.length) {
    return <p class="empty">{filtered ? "No key matches." : "No keys yet. Make the first one above."}</p>;
  }
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Table">
      <table>
        <thead>
          <tr><th>Name</th><th>Key</th><th>Status</th><th>May</th><th>Made</th><th>Last used</th><th>Ends</th><th><span class="unseen">Actions</span></th></tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.id} data-key={row.id}>
              <th scope="row">
                {row.name} {row.mode === KeyMode.TEST && <Badge kind="idle">test</Badge>}
                {row.externalId && <div class="note-of-key"><code>{row.externalId}</code></div>}
                {written(row.metadata).map((pair) => <div class="note-of-key" key={pair}>{pair}</div>)}
              </th>
              <td data-label="Key"><code>{row.masked}</code></td>
              <td data-label="Status"><Badge kind={STATUS[row.status].kind}>{STATUS[row.status].name}</Badge></td>
              <td data-label="May" class="fine">
                {row.scopes.join(", ")}
                {row.dailyLimit !== undefined && <>, {count(row.dailyLimit)} a day</>}
              </td>
              <td data-label="Made">{ago(row.createdAt, now)}</td>
              <td data-label="Last used">{ago(row.lastUsed, now)}</td>
              <td data-label="Ends">{row.revokedAt ? ago(row.revokedAt, now) : moment(row.expiresAt)}</td>
              <td class="actions">
                {row.status === KeyStatus.ACTIVE && (
                  <Button kind="quiet" label={`Replace ${row.name}`} onClick={() => onReplace(row)}>Replace</Button>
                )}
                {(row.status === KeyStatus.ACTIVE || row.status === KeyStatus.ROTATING) && (
                  <Button kind="quiet" label={`Revoke ${row.name}`} onClick={() => onEnd(row)}>Revoke</Button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The only time that the key is seen whole: it is left by its button alone, and kept nowhere. */
function Secret({ made, onClose }: { made: Made; onClose: () => void }) {
  const example = `curl ${location.origin}/v1/sign -H 'x-api-key: ${made.secret}' \\
     -H 'content-type: application/json' -d '{"roomUrl": "@name"}'`;
  return (
    <Dialog title={`The key “${made.key?.name}”`}>
      <p>Store it now. It is shown this once; only a hash of it is kept.</p>
      <div class="signed-url"><code data-testid="secret">{made.secret}</code></div>
      <Copy text={made.secret} what="the key" />
      <details>
        <summary>Try it from a shell</summary>
        <pre>{example}</pre>
        <Copy text={example} what="the command" />
      </details>
      <div class="dialog-end"><Button kind="primary" onClick={onClose}>I have stored it</Button></div>
    </Dialog>
  );
}

/** By rotation: the successor has the same name, scopes and limits, and for a while both work. */
function Replace({ old, onClose }: { old: Key; onClose: (made?: Made) => void }) {
  const [grace, setGrace] = useState(DAY);
  const [once] = useState(randomKey); // if an answer is lost, pressing again gives the same successor
  const rotate = useAction(async () => {
    const idempotencyKey = `${once}-${grace}`;
    onClose(await keys.rotateKey({ keyId: old.id, gracePeriod: { seconds: grace }, idempotencyKey }));
  });
  return (
    <Dialog title={`Replace “${old.name}”`} onCancel={() => onClose()}>
      <p>A new key of the same name, scopes and limits takes the place of <code>{old.masked}</code>.</p>
      <Field label="The old key works on for" hint="Long enough to bring the new one to where it is used.">
        {(attributes) => (
          <select {...attributes} value={String(grace)} onChange={(event) => setGrace(BigInt(event.currentTarget.value))}>
            {GRACES.map(({ seconds, name }) => <option key={name} value={String(seconds)}>{name}</option>)}
          </select>
        )}
      </Field>
      <ErrorNote trouble={rotate.trouble} />
      <div class="dialog-end">
        <Button onClick={() => onClose()}>Keep it</Button>
        <Button kind="primary" busy={rotate.busy} onClick={() => void rotate.run()}>Replace</Button>
      </div>
    </Dialog>
  );
}

function Revoke({ doomed, onClose }: { doomed: Key; onClose: (revoked: boolean) => void }) {
  const revoke = useAction(async () => {
    await keys.revokeKey({ keyId: doomed.id });
    onClose(true);
  });
  return (
    <Dialog title={`Revoke “${doomed.name}”?`} onCancel={() => onClose(false)}>
      <p>
        <code>{doomed.masked}</code> will be refused everywhere within a second. This can't be undone.
      </p>
      <ErrorNote trouble={revoke.trouble} />
      <div class="dialog-end">
        <Button onClick={() => onClose(false)}>Keep it</Button>
        <Button kind="danger" busy={revoke.busy} onClick={() => void revoke.run()}>Revoke</Button>
      </div>
    </Dialog>
  );
}
