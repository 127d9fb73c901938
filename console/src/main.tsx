import { render } from "preact";
import { App } from "./app.tsx";
import { session } from "./session.ts";
import { applyTheme } from "./theme.ts";

applyTheme();
void session.restore();
render(<App />, document.getElementById("app") as HTMLElement);
