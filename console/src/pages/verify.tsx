/** Does a signed URL hold? Anyone may ask. */
import { useState } from "preact/hooks";
import { open } from "../api.ts";
import { moment } from "../format.ts";
import { Algorithm } from "../gen/signgate/signer/v1/signer_pb.ts";
import { useLoad } from "../hooks.ts";
import { Button, Card, ErrorNote, Field, Note, onSubmit, Page, Waiting } from "../parts/basics.tsx";

const ADVICE: Readonly<Record<string, string>> = {
  MALFORMED: "Paste the whole signed URL, from https:// to the last character of sg_sig.",
  NOT_CANONICAL: "The address before the signature was changed after it was signed.",
  UNKNOWN_KEY: "It was signed elsewhere, or with a key whose time is over.",
  BAD_SIGNATURE: "Some part of the URL was changed after it was signed.",
  EXPIRED: "It was truly signed here. Sign the room again.",
};

export function VerifyPage() {
  const [url, setUrl] = useState("");
  const [asked, setAsked] = useState<{ url: string; turn: number }>();
  return (
    <Page title="Verify" lead="Tell whether a URL carries a signature of this deployment's native engine that holds now.">
      <Card title="Signed URL">
        <form onSubmit={onSubmit(() => setAsked({ url: url.trim(), turn: (asked?.turn ?? 0) + 1 }))}>
          <Field label="URL" hint="It is a credential while it holds: paste it nowhere else.">
            {(attributes) => (
              <textarea
                {...attributes}
                class="mono"
                name="signed_url"
                rows={4}
                required
                spellcheck={false}
                value={url}
                onInput={(event) => setUrl(event.currentTarget.value)}
              />
            )}
          </Field>
          <Button kind="primary" submit icon="verify">Verify</Button>
        </form>
        {asked && <Verdict key={asked.turn} url={asked.url} />}
      </Card>
    </Page>
  );
}

export function Verdict({ url }: { url: string }) {
  const { data, trouble, reload } = useLoad((signal) => open.verifySignature({ signedUrl: url }, { signal }), [url]);
  if (trouble) return <ErrorNote trouble={trouble} onRetry={reload} />;
  if (!data) return <Waiting what="the verdict" />;
  if (!data.valid) {
    return (
      <Note kind="bad">
        <p class="note-title">It does not hold: {data.message || data.reason}</p>
        <p>{ADVICE[data.reason]}</p>
        <p class="fine"><code>{data.reason}</code></p>
      </Note>
    );
  }
  return (
    <Note kind="good">
      <p class="note-title">It holds, until {moment(data.expiresAt, "further notice")}.</p>
      <p class="fine">
        <code>{data.canonicalUrl}</code>, signed with key <code>{data.signingKeyId}</code> ({Algorithm[data.algorithm]})
      </p>
    </Note>
  );
}
