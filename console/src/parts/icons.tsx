/** Line icons, 20 by 20, in the text's colour. */
const PATHS = {
  sign: "M4 16c3-1 4-9 7-12 1-1 3 0 2 2-2 4-6 6-6 9s5-1 6-2c0 2 1 2 3 1M3 18h14",
  keys: "M12.5 4a3.5 3.5 0 1 1-2.8 5.6L4 15.3V17h3v-2h2v-2h1.2l1.3-1.3A3.5 3.5 0 0 1 12.5 4Zm1 3.2h.01",
  quota: "M3.5 14a7 7 0 1 1 13 0M10 13l3-4.5M10 13.5h.01",
  usage: "M4 16V9m4 7V5m4 11v-5m4 5V7",
  verify: "M10 2.5 4 5v4.5c0 4 2.6 6.7 6 8 3.4-1.3 6-4 6-8V5l-6-2.5Zm-2.6 7.3 2 2 3.4-3.8",
  account: "M10 10a3 3 0 1 0 0-6 3 3 0 0 0 0 6Zm-6 6.5c.6-3 3-4.5 6-4.5s5.4 1.5 6 4.5",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4V7Z",
  check: "m4 10.5 4 4 8-9",
  cross: "m5 5 10 10M15 5 5 15",
  alert: "M10 3 2.5 16.5h15L10 3Zm0 5v4m0 2.2h.01",
  sun: "M10 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM10 2v1.5m0 13V18m8-8h-1.5m-13 0H2m13.7-5.7-1.1 1.1M5.4 14.6l-1.1 1.1m11.4 0-1.1-1.1M5.4 5.4 4.3 4.3",
  moon: "M16.5 12A7 7 0 0 1 8 3.5a7 7 0 1 0 8.5 8.5Z",
  auto: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14Zm0 0v14M10 6h4m-4 4h6.5m-6.5 4h4",
  out: "M8 4H4v12h4m4-9 3 3-3 3m3-3H8",
  refresh: "M15.5 8A6 6 0 0 0 4.6 7.5M4.5 4v3.5H8M4.5 12a6 6 0 0 0 10.9.5m.1 3.5v-3.5H12",
  download: "M10 3v9m-3.5-3.5L10 12l3.5-3.5M4 16h12",
  plus: "M10 4v12M4 10h12",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M8 24V14a8 8 0 0 1 16 0v10m-12-6 3 3 5-6" />
    </svg>
  );
}
