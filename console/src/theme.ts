/** Light, dark, or as the system has it. */
export type Theme = "auto" | "light" | "dark";

const KEPT = "signgate.theme";
const THEMES: readonly Theme[] = ["auto", "light", "dark"];

export function theme(): Theme {
  const kept = localStorage.getItem(KEPT) as Theme;
  return THEMES.includes(kept) ? kept : "auto";
}

export function applyTheme(): void {
  document.documentElement.dataset["theme"] = theme();
}

/** The one after the present one. */
export function nextTheme(): Theme {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length] ?? "auto";
  localStorage.setItem(KEPT, next);
  applyTheme();
  return next;
}
