/** Numbers, times and durations as people read them. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";

const NUMBER = new Intl.NumberFormat("en");
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export function count(value: bigint | number): string {
  return NUMBER.format(value);
}

export function date(timestamp: Timestamp): Date {
  return new Date(Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6);
}

export function timestamp(value: Date): { seconds: bigint; nanos: number } {
  const ms = value.getTime();
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (((ms % 1000) + 1000) % 1000) * 1e6 };
}

/** Day and time, in the reader's own zone; `absent` where there is none. */
export function moment(timestamp: Timestamp | undefined, absent = "never"): string {
  return timestamp ? MOMENT.format(date(timestamp)) : absent;
}

/** The time of a moment of today, with its day otherwise. */
export function clock(timestamp: Timestamp, now: Date): string {
  const at = date(timestamp);
  return at.toDateString() === now.toDateString() ? CLOCK.format(at) : MOMENT.format(at);
}

/** The two largest units of a duration: `4 h 12 min`, `1 min 05 s`, `9 s`. Nothing is below zero. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const [days, hours, minutes, rest] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
    whole % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${rest} s`;
}

/** How long ago, roughly. */
export function ago(timestamp: Timestamp | undefined, now: Date): string {
  if (!timestamp) return "never";
  const seconds = (now.getTime() - date(timestamp).getTime()) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return moment(timestamp);
}

export function milliseconds(value: number): string {
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value < 10 && value % 1 ? value.toFixed(1) : Math.round(value)} ms`;
}

/** The UTC midnight before a moment. */
export function utcMidnight(now: Date): Date {
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()));
}
