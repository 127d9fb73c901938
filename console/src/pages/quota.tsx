/** Every limit that applies to the user, and what is left of it. */
import { quotas } from "../api.ts";
import { count, moment } from "../format.ts";
import { Pool } from "../gen/signgate/common/v1/quota_pb.ts";
import { useLoad } from "../hooks.ts";
import { Button, Card, ErrorNote, Page, Waiting } from "../parts/basics.tsx";
import { LimitBar } from "../parts/limits.tsx";

const EVERY_MS = 10_000;
const POOLS: Readonly<Record<Pool, { name: string; of: string }>> = {
  [Pool.UNSPECIFIED]: { name: "Other", of: "" },
  [Pool.FREE]: { name: "Without a key", of: "What you sign while logged in, as here." },
  [Pool.API_KEY]: { name: "With API keys", of: "What all your keys sign together." },
};

export function QuotaPage() {
  const { data, trouble, loading, reload } = useLoad((signal) => quotas.getQuota({}, { signal }), [], EVERY_MS);
  return (
    <Page
      title="Quota"
      lead={data ? `You are on the tier “${data.tier}”. As of ${moment(data.asOf)}.` : "What you may sign, and what is left."}
      aside={<Button kind="quiet" icon="refresh" busy={loading} onClick={reload}>Refresh</Button>}
    >
      <ErrorNote trouble={trouble} onRetry={reload} />
      {!data && !trouble && <Waiting what="your quota" />}
      <div class="columns even">
        {data?.pools.map((pool) => (
          <Card key={pool.pool} title={POOLS[pool.pool].name} aside={<span class="fine">plan {pool.plan}</span>}>
            <p class="hint">{POOLS[pool.pool].of}</p>
            <p class="figure"><strong>{count(pool.usedToday)}</strong> signed today</p>
            {pool.limits.map((limit) => <LimitBar key={limit.kind} state={limit} />)}
          </Card>
        ))}
      </div>
    </Page>
  );
}
