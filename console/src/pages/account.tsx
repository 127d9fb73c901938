/** The account: who it is, where it is signed in, a new password. */
import { useState } from "preact/hooks";
import { account } from "../api.ts";
import { moment } from "../format.ts";
import { SignOutScope } from "../gen/signgate/auth/v1/auth_pb.ts";
import { useAction, useLoad, useSession } from "../hooks.ts";
import { Badge, Button, Card, ErrorNote, Note, onSubmit, Page, Waiting } from "../parts/basics.tsx";
import { Factors } from "../parts/factors.tsx";
import { RevokeAll } from "../parts/revokeall.tsx";
import { session } from "../session.ts";
import { Password } from "./entry.tsx";

export function AccountPage() {
  const state = useSession();
  const { trouble, reload } = useLoad(async (signal) => {
    const { user } = await account.getUser({}, { signal });
    if (user) session.update(user);
  }, []);
  const user = state.status === "in" ? state.user : undefined;
  return (
    <Page title="Account" lead="Your profile, your password, your second factor and your sessions.">
      <ErrorNote trouble={trouble} onRetry={reload} />
      <div class="columns even">
        <Card title="Profile">
          <dl class="facts">
            <dt>E-mail</dt><dd>{user?.email}</dd>
            <dt>Tier</dt><dd>{user?.tier}</dd>
            <dt>Member since</dt><dd>{moment(user?.createdAt)}</dd>
            <dt>Confirmed</dt><dd>{moment(user?.emailConfirmedAt)}</dd>
            <dt>Last login</dt><dd>{moment(user?.lastLogin)}</dd>
          </dl>
        </Card>
        <NewPassword email={user?.email ?? ""} />
      </div>
      <Factors factors={user?.factors ?? []} onChange={reload} />
      <SessionList />
    </Page>
  );
}

/** `email` is for the password manager, which keeps passwords by name. */
function NewPassword({ email }: { email: string }) {
  const [password, setPassword] = useState("");
  const [done, setDone] = useState(false);
  const change = useAction(async () => {
    setDone(false);
    const { user } = await account.updateUser({ password });
    if (user) session.update(user);
    setPassword("");
    setDone(true);
  });
  return (
    <Card title="Password">
      <form onSubmit={onSubmit(() => void change.run())}>
        <input type="email" autocomplete="username" value={email} hidden readOnly />
        <Password
          label="New password"
          value={password}
          onInput={setPassword}
          autocomplete="new-password"
          hint="At least 8 characters. Your other sessions end."
        />
        <ErrorNote trouble={change.trouble} />
        {done && <Note kind="good">The new password counts from now on.</Note>}
        <Button submit busy={change.busy}>Set the password</Button>
      </form>
      {done && (
        <div class="card-end">
          <p>API keys work on. If someone else knew the password, revoke them too.</p>
          <RevokeAll />
        </div>
      )}
    </Card>
  );
}

function SessionList() {
  const { data, trouble, reload } = useLoad(
    async (signal) => (await account.listSessions({}, { signal })).sessions,
    [],
  );
  const end = useAction(async (sessionId: string) => {
    await account.revokeSession({ sessionId });
    reload();
  });
  const everywhere = useAction(() => session.end(SignOutScope.GLOBAL));
  return (
    <Card
      title="Sessions"
      aside={<Button kind="quiet" busy={everywhere.busy} onClick={() => void everywhere.run()}>Sign out everywhere</Button>}
    >
      <ErrorNote trouble={trouble ?? end.trouble} onRetry={reload} />
      {!data && !trouble && <Waiting what="your sessions" />}
      {data && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Table">
          <table>
            <thead>
              <tr><th>Signed in</th><th>Last refreshed</th><th>From</th><th>With</th><th><span class="unseen">Actions</span></th></tr>
            </thead>
            <tbody>
              {data.map((item) => (
                <tr key={item.id}>
                  <td data-label="Signed in" class="nowrap">{moment(item.createdAt)}</td>
                  <td data-label="Last refreshed" class="nowrap">{moment(item.refreshedAt)}</td>
                  <td data-label="From"><code>{item.ip}</code></td>
                  <td data-label="With" class="fine agent">{item.userAgent}</td>
                  <td>
                    {item.current
                      ? <Badge kind="good">this one</Badge>
                      : <Button kind="quiet" onClick={() => void end.run(item.id)}>End</Button>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}
