/** The frame: who is signed in, where one can go, and the page itself. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useRoute, useSession } from "./hooks.ts";
import { AccountPage } from "./pages/account.tsx";
import { Entry } from "./pages/entry.tsx";
import { KeysPage } from "./pages/keys.tsx";
import { QuotaPage } from "./pages/quota.tsx";
import { SignPage } from "./pages/sign.tsx";
import { UsagePage } from "./pages/usage.tsx";
import { VerifyPage } from "./pages/verify.tsx";
import { Button, Note } from "./parts/basics.tsx";
import { Confirm } from "./parts/confirm.tsx";
import { Icon, Mark, type IconName } from "./parts/icons.tsx";
import { session } from "./session.ts";
import { nextTheme, theme, type Theme } from "./theme.ts";

interface Place {
  route: string;
  name: string;
  icon: IconName;
  page: () => ComponentChildren;
}

const PLACES: readonly Place[] = [
  { route: "/sign", name: "Sign", icon: "sign", page: () => <SignPage /> },
  { route: "/keys", name: "API keys", icon: "keys", page: () => <KeysPage /> },
  { route: "/quota", name: "Quota", icon: "quota", page: () => <QuotaPage /> },
  { route: "/usage", name: "Usage", icon: "usage", page: () => <UsagePage /> },
  { route: "/verify", name: "Verify", icon: "verify", page: () => <VerifyPage /> },
  { route: "/account", name: "Account", icon: "account", page: () => <AccountPage /> },
];

export function App() {
  const state = useSession();
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const moved = useRef(false);
  const inside = state.status === "in";
  // Whoever follows a link by keyboard or ear goes on at the new page's heading.
  useEffect(() => {
    if (moved.current) {
      scrollTo(0, 0); // or the heading would stay under the bar at the top
      main.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
    }
    moved.current = true;
  }, [route, inside]);

  const place = PLACES.find((candidate) => candidate.route === route) ?? PLACES[0]!;
  const notice = "notice" in state && state.notice;
  return (
    <div class={inside ? "frame inside" : "frame"}>
      <a class="skip" href="#main" onClick={skipTo(main)}>Skip to the content</a>
      <header class="top">
        <a class="brand" href="#/"><Mark /> Signgate</a>
        {inside && <Nav current={place} />}
        <div class="top-end">
          {inside && <span class="who" title={state.user.email}>{state.user.email}</span>}
          <ThemeButton />
          {inside && (
            <Button kind="quiet" icon="out" label="Sign out" onClick={() => void session.end().catch(() => undefined)}>
              Sign out
            </Button>
          )}
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {notice && <Note kind="info">{notice}</Note>}
        {state.status === "in" ? place.page() : null}
        {state.status === "out" ? route === "/verify" ? <VerifyPage /> : <Entry route={route} /> : null}
        {state.status === "restoring" ? <p class="waiting" role="status">One moment …</p> : null}
      </main>
      <Confirm />
      <footer class="foot">
        <span>Requests go to {location.host} only.</span>
        <a href="licences.txt">Licences</a>
      </footer>
    </div>
  );
}

function Nav({ current }: { current: Place }) {
  return (
    <nav aria-label="Console">
      {PLACES.map(({ route, name, icon }) => (
        <a key={route} href={`#${route}`} aria-current={route === current.route ? "page" : undefined}>
          <Icon name={icon} />
          {name}
        </a>
      ))}
    </nav>
  );
}

const THEME_ICONS: Readonly<Record<Theme, IconName>> = { auto: "auto", light: "sun", dark: "moon" };

function ThemeButton() {
  const [now, setNow] = useState(theme);
  return (
    <Button
      kind="quiet"
      bare
      icon={THEME_ICONS[now]}
      label={`Colours: ${now === "auto" ? "as the system" : now}. Change`}
      onClick={() => setNow(nextTheme())}
    >
      Colours
    </Button>
  );
}

/** The address after `#` is the route, so the link must not change it. */
function skipTo(main: { current: HTMLElement | null }) {
  return (event: Event) => {
    event.preventDefault();
    main.current?.focus();
  };
}
