/** What was asked for, and what became of it. */
import { useState } from "preact/hooks";
import { keys, usage } from "../api.ts";
import { clock, count, date, milliseconds, timestamp, utcMidnight } from "../format.ts";
import { ExportFormat, Granularity, type UsageRecord, type UsageStats } from "../gen/signgate/usage/v1/usage_pb.ts";
import { useAction, useLoad, useNow } from "../hooks.ts";
import { Badge, Button, Card, ErrorNote, Page, Waiting } from "../parts/basics.tsx";
import { Chart, type Bar } from "../parts/chart.tsx";

const EVERY_MS = 10_000;
const PAGE = 25;
const DAY_MS = 86_400_000;
const MONTH_DAYS = 30;

type Span = "day" | "month";
type Shown = "all" | "signed" | "refused";

export function UsagePage() {
  return (
    <Page
      title="Usage"
      lead="Every request of yours and of your keys. A request shows within a second or so."
      aside={<Export />}
    >
      <Activity />
      <Requests />
    </Page>
  );
}

function Activity() {
  const [span, setSpan] = useState<Span>("day");
  const { data, trouble, reload } = useLoad(
    async (signal) => {
      const start = beginning(span);
      const granularity = span === "day" ? Granularity.HOUR : Granularity.DAY;
      const answer = await usage.getUsageStats({ filter: { startTime: timestamp(start) }, granularity }, { signal });
      return { total: answer.total, bars: bars(span, start, answer.buckets) };
    },
    [span],
    EVERY_MS,
  );
  const total = data?.total;
  return (
    <Card
      title={span === "day" ? "Today" : "The last 30 days"}
      aside={
        <span class="switch" role="group" aria-label="Time">
          <button type="button" aria-pressed={span === "day"} onClick={() => setSpan("day")}>Today</button>
          <button type="button" aria-pressed={span === "month"} onClick={() => setSpan("month")}>30 days</button>
        </span>
      }
    >
      <ErrorNote trouble={trouble} onRetry={reload} />
      {!data && !trouble && <Waiting what="the chart" />}
      {total && (
        <dl class="figures">
          <div><dt>Requests</dt><dd data-testid="total">{count(total.totalRequests)}</dd></div>
          <div><dt>Signed</dt><dd data-testid="signed">{count(total.successfulRequests)}</dd></div>
          <div><dt>Refused</dt><dd data-testid="refused">{count(total.failedRequests)}</dd></div>
          <div><dt>Median</dt><dd>{milliseconds(total.p50ResponseTimeMs)}</dd></div>
          <div><dt>95th percentile</dt><dd>{milliseconds(total.p95ResponseTimeMs)}</dd></div>
        </dl>
      )}
      {data && (
        <Chart
          bars={data.bars}
          caption={span === "day" ? "Requests by hour of the UTC day" : "Requests by UTC day"}
        />
      )}
    </Card>
  );
}

function Requests() {
  const [shown, setShown] = useState<Shown>("all");
  const [pages, setPages] = useState(1);
  const now = useNow(30_000);
  const names = useLoad(
    async (signal) => {
      const answer = await keys.listKeys({ includeInactive: true, pageSize: 200 }, { signal });
      return new Map(answer.keys.map((key) => [key.id, key.name]));
    },
    [],
    EVERY_MS,
  );
  const { data, trouble, reload } = useLoad(
    async (signal) => {
      const filter = shown === "all" ? {} : { success: shown === "signed" };
      const answer = await usage.listUsage({ filter, pageSize: PAGE * pages }, { signal });
      return { records: answer.records, more: answer.nextPageToken !== "" };
    },
    [shown, pages],
    EVERY_MS,
  );
  const choose = (choice: Shown) => {
    setShown(choice);
    setPages(1);
  };
  return (
    <Card
      title="Recent requests"
      aside={
        <span class="switch" role="group" aria-label="Which">
          {(["all", "signed", "refused"] as const).map((choice) => (
            <button key={choice} type="button" aria-pressed={shown === choice} onClick={() => choose(choice)}>
              {choice[0]?.toUpperCase() + choice.slice(1)}
            </button>
          ))}
        </span>
      }
    >
      <ErrorNote trouble={trouble} onRetry={reload} />
      {!data && !trouble && <Waiting what="your requests" />}
      {data && !data.records.length && <p class="empty">Nothing yet. <a href="#/sign">Sign a room URL</a>.</p>}
      {data && data.records.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Table">
          <table>
            <thead>
              <tr><th>Time</th><th>Room</th><th>Result</th><th class="number">Latency</th><th>By</th><th>Engine</th></tr>
            </thead>
            <tbody>
              {data.records.map((record) => (
                <Row key={record.id} record={record} now={now} name={names.data?.get(record.apiKeyId)} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {data?.more && <Button kind="quiet" onClick={() => setPages(pages + 1)}>Show more</Button>}
    </Card>
  );
}

function Row({ record, now, name }: { record: UsageRecord; now: Date; name: string | undefined }) {
  return (
    <tr title={`Request ${record.id}`}>
      <td data-label="Time" class="nowrap">{record.createdAt && clock(record.createdAt, now)}</td>
      <td data-label="Room" class="room"><code>{record.roomUrl}</code></td>
      <td data-label="Result">
        {record.success
          ? <Badge kind="good">signed</Badge>
          : <Badge kind="bad">{record.errorReason || "refused"}</Badge>}
      </td>
      <td data-label="Latency" class="number">{milliseconds(record.responseTimeMs)}</td>
      <td data-label="By" class="by" title={name}>{record.apiKeyId ? (name ?? "a key") : "you"}</td>
      <td data-label="Engine">{record.engine}</td>
    </tr>
  );
}

function Export() {
  const save = useAction(async () => {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const { data } of usage.exportUsage({ format: ExportFormat.CSV }, { timeoutMs: 300_000 })) {
      parts.push(new Uint8Array(data));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
    link.download = "signgate-usage.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  return (
    <div>
      <Button kind="plain" icon="download" busy={save.busy} onClick={() => void save.run()}>Export as CSV</Button>
      <ErrorNote trouble={save.trouble} />
    </div>
  );
}

function beginning(span: Span): Date {
  const today = utcMidnight(new Date());
  return span === "day" ? today : new Date(today.getTime() - (MONTH_DAYS - 1) * DAY_MS);
}

/** A bar for every hour or day, also where nothing was asked for. */
function bars(span: Span, start: Date, buckets: UsageStats[]): Bar[] {
  const [step, amount] = span === "day" ? [3_600_000, 24] : [DAY_MS, MONTH_DAYS];
  const found = new Map(buckets.map((item) => [item.bucket ? date(item.bucket).getTime() : 0, item]));
  return Array.from({ length: amount }, (_, index) => {
    const at = new Date(start.getTime() + index * step);
    const stats = found.get(at.getTime());
    return {
      label: span === "day" ? at.toISOString().slice(11, 16) : at.toISOString().slice(5, 10),
      signed: Number(stats?.successfulRequests ?? 0n),
      refused: Number(stats?.failedRequests ?? 0n),
      p95: stats?.p95ResponseTimeMs ?? 0,
    };
  });
}
