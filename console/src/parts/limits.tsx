/** Limits as bars: how much is used, what is left, when it is whole again. */
import type { LimitState } from "../gen/signgate/common/v1/quota_pb.ts";
import { LimitKind } from "../gen/signgate/common/v1/quota_pb.ts";
import { count, date, duration } from "../format.ts";
import { useNow } from "../hooks.ts";

const NAMES: Readonly<Record<LimitKind, string>> = {
  [LimitKind.UNSPECIFIED]: "Limit",
  [LimitKind.USER_DAY]: "Today",
  [LimitKind.USER_MINUTE]: "At once",
  [LimitKind.KEY_DAY]: "Today, by this key",
  [LimitKind.KEY_MINUTE]: "At once, by this key",
};
const RATES = new Set([LimitKind.USER_MINUTE, LimitKind.KEY_MINUTE]);
const NEARLY = 0.85;

export function LimitBar({ state }: { state: LimitState }) {
  const now = useNow();
  const used = state.limit - state.remaining;
  const share = state.limit > 0n ? Number(used) / Number(state.limit) : 1;
  const level = share >= 1 ? "full" : share >= NEARLY ? "nearly" : "";
  const name = NAMES[state.kind];
  const left = state.resetAt ? (date(state.resetAt).getTime() - now.getTime()) / 1000 : 0;
  return (
    <div class="limit" data-kind={LimitKind[state.kind]}>
      <div class="limit-head">
        <span>{name}</span>
        <span><strong>{count(state.remaining)}</strong> of {count(state.limit)} left</span>
      </div>
      <div
        class={`bar ${level}`}
        role="meter"
        aria-label={`${name}: used`}
        aria-valuemin={0}
        aria-valuemax={Number(state.limit)}
        aria-valuenow={Number(used)}
        aria-valuetext={`${count(used)} of ${count(state.limit)} used`}
      >
        <span style={{ width: share > 0 ? `max(4px, ${Math.min(100, share * 100)}%)` : "0" }} />
      </div>
      <p class="hint">{whole(state, left)}</p>
    </div>
  );
}

function whole(state: LimitState, seconds: number): string {
  if (RATES.has(state.kind)) {
    return seconds > 0 && state.remaining < state.limit
      ? `A burst; whole again in ${duration(seconds)}`
      : "A burst; it refills by the minute's rate";
  }
  const at = state.resetAt && date(state.resetAt);
  return at ? `Starts again in ${duration(seconds)}, at ${at.toISOString().slice(11, 16)} UTC` : "";
}
