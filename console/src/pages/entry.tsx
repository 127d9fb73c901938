/** The ways in: sign in, sign up, confirm by code, sign in by a mailed code. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { OtpType } from "../gen/signgate/auth/v1/auth_pb.ts";
import type { Session } from "../gen/signgate/auth/v1/user_pb.ts";
import { useAction } from "../hooks.ts";
import { Button, CodeField, ErrorNote, Field, Note, onSubmit } from "../parts/basics.tsx";
import { SecondFactor, verifiedFactors } from "../parts/secondfactor.tsx";
import { accounts, HERE, session } from "../session.ts";
import { Engines } from "../parts/engines.tsx";

interface FormProps {
  email: string;
  setEmail: (email: string) => void;
  /** Take up a session, or ask for the account's second factor first. */
  enter: (given: Session) => void;
}

export function Entry({ route }: { route: string }) {
  const [email, setEmail] = useState("");
  const [halfway, setHalfway] = useState<Session>();
  const enter = (given: Session) => (verifiedFactors(given.user).length ? setHalfway(given) : session.begin(given));
  const forms: Readonly<Record<string, (props: FormProps) => JSX.Element>> = {
    "/sign-up": SignUp,
    "/confirm": Confirm,
    "/recover": Recover,
  };
  const Form = forms[route] ?? SignIn;
  return (
    <div class="entry">
      <div class="pitch">
        <h1 tabIndex={-1}>Signed room URLs, accounted for.</h1>
        <p>
          Signgate signs TikTok LIVE room URLs for those who hold an API key or a login: inside quotas, with every
          request on record.
        </p>
        <Engines />
        <p><a href="#/verify">Verify a signed URL</a>, without an account.</p>
      </div>
      <section class="card form-card">
        {halfway
          ? (
            <SecondFactor
              user={halfway.user}
              token={() => Promise.resolve(halfway.accessToken)}
              onProved={(raised) => session.begin(raised)}
              onLeave={() => setHalfway(undefined)}
            />
          )
          : <Form email={email} setEmail={setEmail} enter={enter} />}
      </section>
    </div>
  );
}

function SignIn({ email, setEmail, enter }: FormProps) {
  const [password, setPassword] = useState("");
  const signIn = useAction(async () => {
    const answer = await accounts.signIn({ email, password });
    if (answer.session) enter(answer.session);
  });
  return (
    <form onSubmit={onSubmit(() => void signIn.run())}>
      <h2>Sign in</h2>
      <Email value={email} onInput={setEmail} />
      <Password value={password} onInput={setPassword} autocomplete="current-password" />
      <ErrorNote trouble={signIn.trouble} />
      {signIn.trouble?.reason === "EMAIL_NOT_CONFIRMED" && <p><a href="#/confirm">Enter the code</a></p>}
      <Button kind="primary" submit busy={signIn.busy}>Sign in</Button>
      <p class="ways">
        <a href="#/sign-up">Make an account</a>
        <a href="#/recover">Sign in by a mailed code</a>
      </p>
    </form>
  );
}

function SignUp({ email, setEmail, enter }: FormProps) {
  const [password, setPassword] = useState("");
  const signUp = useAction(async () => {
    const answer = await accounts.signUp({ email, password, redirectTo: HERE });
    if (answer.session) enter(answer.session);
    else location.hash = "/confirm";
  });
  return (
    <form onSubmit={onSubmit(() => void signUp.run())}>
      <h2>Make an account</h2>
      <Email value={email} onInput={setEmail} />
      <Password
        value={password}
        onInput={setPassword}
        autocomplete="new-password"
        hint="At least 8 characters. A few unrelated words are good."
      />
      <ErrorNote trouble={signUp.trouble} />
      <Button kind="primary" submit busy={signUp.busy}>Sign up</Button>
      <p class="ways">
        <a href="#/sign-in">Sign in instead</a>
        <a href="#/confirm">Enter a code</a>
      </p>
    </form>
  );
}

function Confirm({ email, setEmail, enter }: FormProps) {
  const [code, setCode] = useState("");
  const confirm = useAction(() => redeem(OtpType.SIGNUP, email, code, enter));
  const again = useAction(async () => {
    await accounts.resend({ type: OtpType.SIGNUP, email, redirectTo: HERE });
    setSent(true);
  });
  const [sent, setSent] = useState(false);
  return (
    <form onSubmit={onSubmit(() => void confirm.run())}>
      <h2>Confirm your address</h2>
      <p>A mail with a code is on its way. Enter the code here; it holds for an hour.</p>
      <Email value={email} onInput={setEmail} />
      <CodeField value={code} onInput={setCode} />
      <ErrorNote trouble={confirm.trouble ?? again.trouble} />
      {sent && !confirm.trouble && <Note kind="good">If the address waits for a code, a new one is on its way.</Note>}
      <Button kind="primary" submit busy={confirm.busy}>Confirm and sign in</Button>
      <p class="ways">
        <Button kind="quiet" disabled={!email} busy={again.busy} onClick={() => void again.run()}>Send a new code</Button>
        <a href="#/sign-in">Sign in instead</a>
      </p>
    </form>
  );
}

function Recover({ email, setEmail, enter: arrive }: FormProps) {
  const [code, setCode] = useState("");
  const [sent, setSent] = useState(false);
  const send = useAction(async () => {
    await accounts.sendOtp({ email, createUser: false, redirectTo: HERE });
    setSent(true);
  });
  const enter = useAction(() => redeem(OtpType.EMAIL, email, code, arrive));
  const current = sent ? enter : send;
  return (
    <form onSubmit={onSubmit(() => void current.run())}>
      <h2>Sign in by a mailed code</h2>
      <p>
        {sent
          ? "If there is an account for the address, a code is on its way."
          : "For a lost password: sign in by a code, then set a new password under Account."}
      </p>
      <Email value={email} onInput={setEmail} />
      {sent && <CodeField value={code} onInput={setCode} />}
      <ErrorNote trouble={current.trouble} />
      <Button kind="primary" submit busy={current.busy}>{sent ? "Sign in" : "Send the code"}</Button>
      <p class="ways">
        {sent && <Button kind="quiet" busy={send.busy} onClick={() => void send.run()}>Send a new code</Button>}
        <a href="#/sign-in">Sign in with a password</a>
      </p>
    </form>
  );
}

async function redeem(type: OtpType, email: string, token: string, enter: FormProps["enter"]): Promise<void> {
  const answer = await accounts.verify({ type, email, code: { case: "token", value: token.trim() } });
  if (answer.session) enter(answer.session);
}

interface ControlProps {
  value: string;
  onInput: (value: string) => void;
}

function Email({ value, onInput }: ControlProps) {
  return (
    <Field label="E-mail">
      {(attributes) => (
        <input
          {...attributes}
          type="email"
          name="email"
          autocomplete="username"
          required
          maxLength={254}
          value={value}
          onInput={(event) => onInput(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

interface PasswordProps extends ControlProps {
  autocomplete: "current-password" | "new-password";
  label?: string;
  hint?: string;
}

export function Password({ value, onInput, autocomplete, label = "Password", hint }: PasswordProps) {
  const [shown, setShown] = useState(false);
  return (
    <Field label={label} hint={hint}>
      {(attributes) => (
        <span class="with-button">
          <input
            {...attributes}
            {...(shown ? { type: "text" } : { type: "password" })}
            name="password"
            autocomplete={autocomplete}
            required
            minLength={autocomplete === "new-password" ? 8 : 1}
            value={value}
            onInput={(event) => onInput(event.currentTarget.value)}
          />
          <Button kind="quiet" label={`${shown ? "Hide" : "Show"} the password`} onClick={() => setShown(!shown)}>
            {shown ? "Hide" : "Show"}
          </Button>
        </span>
      )}
    </Field>
  );
}
