import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { withProof } from "./confirm.ts";
import { explain, type Trouble } from "./errors.ts";
import { session, type State } from "./session.ts";

export function useSession(): State {
  const [state, setState] = useState(session.state);
  useEffect(() => {
    setState(session.state);
    return session.subscribe(() => setState(session.state));
  }, []);
  return state;
}

/** The path after `#`, such as `/sign`. */
export function useRoute(): string {
  const read = () => location.hash.slice(1) || "/";
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

export interface Loaded<T> {
  data: T | undefined;
  trouble: Trouble | undefined;
  loading: boolean;
  reload: () => void;
}

/**
 * What `load` gives: now, again when `deps` change, on `reload`, and, if `everyMs` is given, from time to
 * time while the page is in view. The last data stays while new is on its way. An answer that comes too late
 * is dropped.
 */
export function useLoad<T>(
  load: (signal: AbortSignal) => Promise<T>,
  deps: readonly unknown[],
  everyMs?: number,
): Loaded<T> {
  const [data, setData] = useState<T>();
  const [trouble, setTrouble] = useState<Trouble>();
  const [loading, setLoading] = useState(true);
  const [turn, setTurn] = useState(0);
  const reload = useCallback(() => setTurn((last) => last + 1), []);

  useEffect(() => {
    const abort = new AbortController();
    setLoading(true);
    load(abort.signal)
      .then((found) => {
        if (abort.signal.aborted) return;
        setData(found);
        setTrouble(undefined);
      })
      .catch((error: unknown) => {
        if (!abort.signal.aborted) setTrouble(explain(error));
      })
      .finally(() => {
        if (!abort.signal.aborted) setLoading(false);
      });
    return () => abort.abort();
  }, [...deps, turn]);

  useEffect(() => {
    if (!everyMs) return;
    const timer = setInterval(() => document.visibilityState === "visible" && reload(), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return { data, trouble, loading, reload };
}

export interface Action<A extends unknown[]> {
  run: (...given: A) => Promise<void>;
  busy: boolean;
  trouble: Trouble | undefined;
  clear: () => void;
}

/** Something the user sets off: one at a time, its failure told. Done again after a proof that a service asks for. */
export function useAction<A extends unknown[]>(act: (...given: A) => Promise<void>): Action<A> {
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState<Trouble>();
  const running = useRef(false);
  const run = async (...given: A) => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setTrouble(undefined);
    try {
      await withProof(() => act(...given));
    } catch (error) {
      setTrouble(explain(error));
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  return { run, busy, trouble, clear: () => setTrouble(undefined) };
}

/** The time, each second. */
export function useNow(everyMs = 1000): Date {
  const [now, setNow] = useState(() => new Date());
  useEffect(() => {
    const timer = setInterval(() => setNow(new Date()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
