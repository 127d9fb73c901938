/** The form that makes a key. */
import { useRef, useState } from "preact/hooks";
import { keys } from "../api.ts";
import { timestamp } from "../format.ts";
import { KeyMode, type CreateKeyResponse } from "../gen/signgate/keys/v1/keys_pb.ts";
import { useAction } from "../hooks.ts";
import { randomKey } from "../once.ts";
import { pairs } from "../pairs.ts";
import { Button, Card, ErrorNote, Field, onSubmit } from "./basics.tsx";

const DAY_MS = 86_400_000;
const SCOPES = [
  { name: "sign", means: "sign room URLs" },
  { name: "usage:read", means: "read its own usage" },
  { name: "quota:read", means: "read its quota" },
  { name: "keys:read", means: "list your keys" },
  { name: "keys:manage", means: "make and revoke your keys" },
];
const USUAL = ["sign", "usage:read", "quota:read"];
const LIVES = [
  { days: 0, name: "Never" },
  { days: 7, name: "In a week" },
  { days: 30, name: "In 30 days" },
  { days: 90, name: "In 90 days" },
  { days: 365, name: "In a year" },
];

/** A form that was sent: if its answer is lost, sending it again gives the same key. */
interface Attempt {
  said: string;
  idempotencyKey: string;
  expiresAt?: ReturnType<typeof timestamp>;
}

export function NewKey({ onMade }: { onMade: (answer: CreateKeyResponse) => void }) {
  const [name, setName] = useState("");
  const [mode, setMode] = useState(KeyMode.LIVE);
  const [days, setDays] = useState(0);
  const [daily, setDaily] = useState("");
  const [scopes, setScopes] = useState<readonly string[]>(USUAL);
  const [externalId, setExternalId] = useState("");
  const [metadata, setMetadata] = useState("");
  const attempt = useRef<Attempt | undefined>(undefined);
  const create = useAction(async () => {
    const said = JSON.stringify([name, mode, days, daily, scopes, externalId, metadata]);
    if (attempt.current?.said !== said) {
      const expiresAt = days ? { expiresAt: timestamp(new Date(Date.now() + days * DAY_MS)) } : {};
      attempt.current = { said, idempotencyKey: randomKey(), ...expiresAt };
    }
    const { said: _, ...once } = attempt.current;
    const answer = await keys.createKey({
      ...once,
      name: name.trim(),
      mode,
      scopes: [...scopes],
      externalId: externalId.trim(),
      metadata: pairs(metadata),
      ...(daily && { dailyLimit: BigInt(daily) }),
    });
    attempt.current = undefined;
    setName("");
    setExternalId("");
    onMade(answer);
  });
  const toggle = (scope: string) =>
    setScopes(scopes.includes(scope) ? scopes.filter((other) => other !== scope) : [...scopes, scope]);
  return (
    <Card title="New key">
      <form onSubmit={onSubmit(() => void create.run())}>
        <div class="row">
          <Field label="Name" invalid={create.trouble?.fields.has("name")}>
            {(attributes) => (
              <input
                {...attributes}
                name="name"
                required
                maxLength={100}
                autocomplete="off"
                placeholder="Where it will be used"
                value={name}
                onInput={(event) => setName(event.currentTarget.value)}
              />
            )}
          </Field>
          <Field label="Ends">
            {(attributes) => (
              <select {...attributes} value={days} onChange={(event) => setDays(Number(event.currentTarget.value))}>
                {LIVES.map((life) => <option key={life.days} value={life.days}>{life.name}</option>)}
              </select>
            )}
          </Field>
          <Field label="For">
            {(attributes) => (
              <select {...attributes} value={mode} onChange={(event) => setMode(Number(event.currentTarget.value))}>
                <option value={KeyMode.LIVE}>production (sgk_live_)</option>
                <option value={KeyMode.TEST}>trying out (sgk_test_)</option>
              </select>
            )}
          </Field>
        </div>
        <details>
          <summary>Scopes, a limit of its own, notes</summary>
          <fieldset>
            <legend>It may</legend>
            {SCOPES.map((scope) => (
              <label class="check" key={scope.name}>
                <input type="checkbox" checked={scopes.includes(scope.name)} onChange={() => toggle(scope.name)} />
                {scope.means} <code>{scope.name}</code>
              </label>
            ))}
          </fieldset>
          <Field
            label="Signatures a day"
            hint="Empty: the plan's limit alone counts."
            invalid={create.trouble?.fields.has("daily_limit")}
          >
            {(attributes) => (
              <input
                {...attributes}
                type="number"
                min={1}
                step={1}
                value={daily}
                onInput={(event) => setDaily(event.currentTarget.value)}
              />
            )}
          </Field>
          <div class="row notes">
            <Field
              label="External id"
              hint="Its id in a system of your own. You can find keys by it."
              invalid={create.trouble?.fields.has("external_id")}
            >
              {(attributes) => (
                <input
                  {...attributes}
                  maxLength={128}
                  autocomplete="off"
                  value={externalId}
                  onInput={(event) => setExternalId(event.currentTarget.value)}
                />
              )}
            </Field>
            <Field
              label="Metadata"
              hint="Notes to find it by, one a line. No secrets."
              invalid={create.trouble?.fields.has("metadata")}
            >
              {(attributes) => (
                <textarea
                  {...attributes}
                  class="mono"
                  rows={2}
                  placeholder="team=search"
                  value={metadata}
                  onInput={(event) => setMetadata(event.currentTarget.value)}
                />
              )}
            </Field>
          </div>
        </details>
        <ErrorNote trouble={create.trouble} />
        <Button kind="primary" submit icon="plus" busy={create.busy} disabled={!scopes.length}>Make the key</Button>
      </form>
    </Card>
  );
}
