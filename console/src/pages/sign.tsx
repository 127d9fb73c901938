/** Sign a room URL, and use what comes out. */
import { useState } from "preact/hooks";
import { quotas, signer } from "../api.ts";
import { date, duration, moment } from "../format.ts";
import { LimitKind, Pool, type LimitState } from "../gen/signgate/common/v1/quota_pb.ts";
import { Algorithm, RoomKind, type SignResponse } from "../gen/signgate/signer/v1/signer_pb.ts";
import { useAction, useLoad, useNow } from "../hooks.ts";
import { Badge, Button, Card, Copy, ErrorNote, Field, onSubmit, Page, Waiting } from "../parts/basics.tsx";
import { Engines, useEngines } from "../parts/engines.tsx";
import { LimitBar } from "../parts/limits.tsx";
import { Verdict } from "./verify.tsx";

const KEEP = 8;
const LIFETIMES = [
  { seconds: 0, name: "The deployment's default" },
  { seconds: 60, name: "1 minute" },
  { seconds: 300, name: "5 minutes" },
  { seconds: 3600, name: "1 hour" },
  { seconds: 86_400, name: "1 day" },
];
const ALGORITHMS = [
  { value: Algorithm.UNSPECIFIED, name: "The deployment's default" },
  { value: Algorithm.ED25519, name: "Ed25519: anyone can verify" },
  { value: Algorithm.HMAC_SHA256, name: "HMAC-SHA-256: for those who share the secret" },
];
const KINDS: Readonly<Record<RoomKind, string>> = {
  [RoomKind.UNSPECIFIED]: "",
  [RoomKind.USERNAME]: "a user's LIVE page",
  [RoomKind.ROOM_ID]: "a room id",
  [RoomKind.WEBCAST]: "a webcast endpoint",
};

export function SignPage() {
  const [url, setUrl] = useState("");
  const [engine, setEngine] = useState("");
  const [lifetime, setLifetime] = useState(0);
  const [algorithm, setAlgorithm] = useState(Algorithm.UNSPECIFIED);
  const [signed, setSigned] = useState<SignResponse[]>([]);
  const engines = useEngines();
  const sign = useAction(async () => {
    const ttl = lifetime ? { ttl: { seconds: BigInt(lifetime) } } : {};
    const answer = await signer.sign({ roomUrl: url.trim(), engine, algorithm, ...ttl });
    setSigned((before) => [answer, ...before].slice(0, KEEP));
  });
  // Beside an error, no result shall look like the answer to what was just asked.
  const shown = sign.trouble ? 0 : 1;
  const [latest, earlier] = [signed.slice(0, shown)[0], signed.slice(shown)];
  return (
    <Page title="Sign" lead="Turn a room's address into a signed one. Here you sign as yourself, without a key.">
      <div class="columns">
        <div>
          <Card title="Room">
            <form onSubmit={onSubmit(() => void sign.run())}>
              <Field
                label="Room URL"
                hint="Any form that people paste: a LIVE page, @name, a room id, a webcast address."
                invalid={sign.trouble?.fields.has("room_url")}
              >
                {(attributes) => (
                  <input
                    {...attributes}
                    class="mono"
                    name="room_url"
                    required
                    autocomplete="off"
                    spellcheck={false}
                    placeholder="https://www.tiktok.com/@name/live"
                    value={url}
                    onInput={(event) => setUrl(event.currentTarget.value)}
                  />
                )}
              </Field>
              <ErrorNote trouble={sign.trouble} />
              <details>
                <summary>Options</summary>
                <div class="row">
                  <Field label="Engine">
                    {(attributes) => (
                      <select {...attributes} value={engine} onChange={(event) => setEngine(event.currentTarget.value)}>
                        <option value="">The deployment's default</option>
                        {engines.data?.map(({ info }) => <option key={info?.name}>{info?.name}</option>)}
                      </select>
                    )}
                  </Field>
                  <Field label="Holds for">
                    {(attributes) => (
                      <select {...attributes} onChange={(event) => setLifetime(Number(event.currentTarget.value))}>
                        {LIFETIMES.map(({ seconds, name }) => <option key={seconds} value={seconds}>{name}</option>)}
                      </select>
                    )}
                  </Field>
                  <Field label="Algorithm">
                    {(attributes) => (
                      <select {...attributes} onChange={(event) => setAlgorithm(Number(event.currentTarget.value))}>
                        {ALGORITHMS.map(({ value, name }) => <option key={value} value={value}>{name}</option>)}
                      </select>
                    )}
                  </Field>
                </div>
              </details>
              <Button kind="primary" submit icon="sign" busy={sign.busy}>Sign</Button>
            </form>
          </Card>
          {latest && <Result key={latest.requestId} answer={latest} />}
          {earlier.length > 0 && <Earlier answers={earlier} />}
        </div>
        <div>
          <FreeQuota latest={signed[0]?.quota} turn={signed[0]?.requestId} />
          <Card title="Engines"><Engines /></Card>
        </div>
      </div>
    </Page>
  );
}

function Result({ answer }: { answer: SignResponse }) {
  const { signature } = answer;
  const [shown, setShown] = useState(false);
  if (!signature) return null;
  const { engine } = signature;
  return (
    <Card
      title="Signed"
      aside={<Countdown answer={answer} />}
    >
      <div class="signed-url" data-testid="signed-url"><code>{signature.signedUrl}</code></div>
      <p class="buttons">
        <Copy text={signature.signedUrl} what="the signed URL" />
        <Button kind="quiet" icon="verify" onClick={() => setShown(true)}>Verify</Button>
      </p>
      {shown && <Verdict url={signature.signedUrl} />}
      <dl class="facts">
        <dt>Room</dt>
        <dd>
          <code>{signature.canonicalUrl}</code>
          <span class="hint"> {KINDS[signature.roomKind]}</span>
        </dd>
        <dt>Engine</dt>
        <dd data-testid="engine">
          {engine?.name} {engine?.version}
          {engine?.browserVersion && <>, browser {engine.browserVersion}</>}
          {engine?.since && <span class="hint"> since {moment(engine.since)}</span>}
        </dd>
        {signature.signingKeyId && (
          <>
            <dt>Signing key</dt>
            <dd><code>{signature.signingKeyId}</code> <span class="hint">{Algorithm[signature.algorithm]}</span></dd>
          </>
        )}
        {signature.expiresAt && (<><dt>Expires</dt><dd>{moment(signature.expiresAt)}</dd></>)}
        <dt>Request</dt>
        <dd><code data-testid="request-id">{answer.requestId}</code> <Copy text={answer.requestId} what="the request id" /></dd>
      </dl>
    </Card>
  );
}

function Countdown({ answer }: { answer: SignResponse }) {
  const now = useNow();
  const expiry = answer.signature?.expiresAt;
  if (!expiry) return null;
  const left = (date(expiry).getTime() - now.getTime()) / 1000;
  return left > 0
    ? <Badge kind={left < 30 ? "warn" : "good"}>holds for {duration(left)}</Badge>
    : <Badge kind="bad">expired</Badge>;
}

function Earlier({ answers }: { answers: SignResponse[] }) {
  return (
    <Card title="Before, on this visit">
      <ul class="earlier">
        {answers.map((answer) => (
          <li key={answer.requestId}>
            <code title={answer.signature?.canonicalUrl}>{answer.signature?.canonicalUrl}</code>
            <Countdown answer={answer} />
            <Copy text={answer.signature?.signedUrl ?? ""} what="the signed URL" />
          </li>
        ))}
      </ul>
    </Card>
  );
}

/** The free pool: each signature's answer brings the day's state; the rest is asked for. */
function FreeQuota({ latest, turn }: { latest: LimitState | undefined; turn: string | undefined }) {
  const { data, trouble, reload } = useLoad(
    async (signal) => (await quotas.getQuota({}, { signal })).pools.find((pool) => pool.pool === Pool.FREE),
    [turn],
  );
  const limits = data?.limits.map((limit) => (limit.kind === LimitKind.USER_DAY && latest ? latest : limit));
  return (
    <Card title="Your quota, without a key" aside={<a href="#/quota">All limits</a>}>
      <ErrorNote trouble={trouble} onRetry={reload} />
      {!limits && !trouble && <Waiting what="the quota" />}
      {limits?.map((limit) => <LimitBar key={limit.kind} state={limit} />)}
    </Card>
  );
}
