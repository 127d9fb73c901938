/** The engines, and whether each signs now. */
import { open } from "../api.ts";
import { moment } from "../format.ts";
import { useLoad } from "../hooks.ts";
import { Badge, ErrorNote, Waiting } from "./basics.tsx";

export function useEngines() {
  return useLoad(async (signal) => (await open.listEngines({}, { signal })).engines, []);
}

export function Engines() {
  const { data, trouble, reload } = useEngines();
  if (trouble) return <ErrorNote trouble={trouble} onRetry={reload} />;
  if (!data) return <Waiting what="the engines" />;
  return (
    <ul class="engines">
      {data.map((engine) => (
        <li key={engine.info?.name}>
          <Badge kind={engine.ready ? "good" : "bad"}>{engine.ready ? "ready" : "not ready"}</Badge>
          <span>
            <strong>{engine.info?.name}</strong> engine, version {engine.info?.version}
            {engine.default && ", the default"}
            {!engine.ready && <span class="hint"> {engine.notReadyReason}</span>}
            {engine.canaryAt && <span class="hint"> checked {moment(engine.canaryAt)}</span>}
          </span>
        </li>
      ))}
    </ul>
  );
}
