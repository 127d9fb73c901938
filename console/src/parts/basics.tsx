/** Small parts that every page is made of. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Trouble } from "../errors.ts";
import { duration } from "../format.ts";
import { Icon, type IconName } from "./icons.tsx";

interface ButtonProps {
  children: ComponentChildren;
  kind?: "primary" | "plain" | "quiet" | "danger";
  icon?: IconName;
  busy?: boolean;
  submit?: boolean;
  disabled?: boolean;
  label?: string;
  /** Shows the icon only. */
  bare?: boolean;
  onClick?: () => void;
}

export function Button(props: ButtonProps) {
  const { children, kind = "plain", icon, busy = false, submit = false, disabled = false, bare = false } = props;
  const { label, onClick } = props;
  return (
    <button
      class={`button ${kind} ${bare ? "bare" : ""}`}
      type={submit ? "submit" : "button"}
      disabled={disabled}
      aria-disabled={busy}
      aria-busy={busy}
      aria-label={label}
      title={bare ? label : undefined}
      onClick={busy ? (event) => event.preventDefault() : onClick}
    >
      {icon && <Icon name={icon} />}
      <span>{children}</span>
    </button>
  );
}

/** Copies a text and says so. */
export function Copy({ text, what }: { text: string; what: string }) {
  const [state, setState] = useState<"ready" | "done" | "failed">("ready");
  useEffect(() => {
    if (state === "ready") return;
    const timer = setTimeout(() => setState("ready"), 2000);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setState("done"),
      () => setState("failed"),
    );
  const said = { ready: "Copy", done: "Copied", failed: "Select it and copy by hand" }[state];
  return (
    <span class="copy">
      <Button kind="quiet" icon={state === "done" ? "check" : "copy"} label={`Copy ${what}`} onClick={() => void copy()}>
        {said}
      </Button>
      <span class="unseen" role="status">{state === "ready" ? "" : `${what}: ${said}`}</span>
    </span>
  );
}

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  /** What is wrong is said in the form's error note. */
  invalid?: boolean | undefined;
  children: (attributes: { id: string; "aria-describedby"?: string; "aria-invalid"?: boolean }) => JSX.Element;
}

/** A labelled control; its hint is read out with it. */
export function Field({ label, hint, invalid = false, children }: FieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, ...(hint && { "aria-describedby": `${id}-hint` }), ...(invalid && { "aria-invalid": true }) })}
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  );
}

/** What went wrong, what to do, and what to quote. */
export function ErrorNote({ trouble, onRetry }: { trouble: Trouble | undefined; onRetry?: () => void }) {
  if (!trouble) return null;
  return (
    <div class="note bad" role="alert" data-reason={trouble.reason}>
      <Icon name="alert" />
      <div>
        <p class="note-title">{trouble.message}</p>
        {trouble.advice && <p>{trouble.advice}</p>}
        {trouble.retryAfter !== undefined && <p>Worth another try in {duration(trouble.retryAfter)}.</p>}
        <p class="fine">
          <code>{trouble.reason}</code>
          {trouble.requestId && <> · request <code>{trouble.requestId}</code></>}
        </p>
      </div>
      {onRetry && <Button kind="quiet" icon="refresh" onClick={onRetry}>Try again</Button>}
    </div>
  );
}

export function Note({ kind, children }: { kind: "good" | "info" | "bad"; children: ComponentChildren }) {
  return (
    <div class={`note ${kind}`} role="status">
      <Icon name={kind === "bad" ? "alert" : "check"} />
      <div>{children}</div>
    </div>
  );
}

export function Badge({ kind, children }: { kind: "good" | "bad" | "warn" | "idle"; children: ComponentChildren }) {
  return <span class={`badge ${kind}`}>{children}</span>;
}

interface CardProps {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
}

export function Card({ title, aside, children }: CardProps) {
  const id = useId();
  return (
    <section class="card" aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

export function Page({ title, lead, aside, children }: CardProps & { lead: ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · Signgate`;
  }, [title]);
  return (
    <>
      <header class="page-head">
        <div>
          <h1 tabIndex={-1}>{title}</h1>
          <p>{lead}</p>
        </div>
        {aside}
      </header>
      {children}
    </>
  );
}

interface DialogProps {
  title: string;
  /** Absent: the dialog is left by its own buttons only. */
  onCancel?: () => void;
  children: ComponentChildren;
}

/** A modal dialog: the browser keeps the focus inside and gives it back. */
export function Dialog({ title, onCancel, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const left = useRef(false);
  const id = useId();
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => {
      left.current = true;
      shown?.close();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      // Escape twice closes it whatever `cancel` says: a browser lets no page hold a user. Then it comes back.
      onClose={() => !left.current && dialog.current?.showModal()}
      onCancel={(event) => {
        event.preventDefault();
        onCancel?.();
      }}
    >
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}

export function Waiting({ what }: { what: string }) {
  return <p class="waiting" role="status">Loading {what} …</p>;
}

/** Handles a form's submit without leaving the page. */
export function onSubmit(act: () => void): (event: Event) => void {
  return (event) => {
    event.preventDefault();
    act();
  };
}

interface CodeFieldProps {
  value: string;
  onInput: (value: string) => void;
  label?: string;
}

/** For what was mailed, or what an app shows. */
export function CodeField({ value, onInput, label = "Code" }: CodeFieldProps) {
  return (
    <Field label={label}>
      {(attributes) => (
        <input
          {...attributes}
          class="code-input"
          name="code"
          inputMode={label === "Code" ? "numeric" : "text"}
          autocomplete="one-time-code"
          required
          maxLength={12}
          value={value}
          onInput={(event) => onInput(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
