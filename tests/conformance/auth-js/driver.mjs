// Runs in a folder of its own, with the unmodified @supabase/auth-js and nothing of ours.
//
// `node driver.mjs URL MAIL_FOLDER SERVICE_ROLE_TOKEN`: each flow in turn, a JSON line each:
// {"flow": name, "error": "" or what went wrong}. A flow's name is its function's.

import { GoTrueClient } from "@supabase/auth-js";
import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const [url, mails, serviceRole] = process.argv.slice(2);
const PASSWORD = "ten green bottles";
const HASHED = "$2b$04$Up1q9P8K.VDmcvFa/SjqEu9feApjySEdc3TE.2td3RnBTQW0vnkJq"; // PASSWORD, by bcrypt
const OTHER = "eleven green bottles";
const RUN = randomBytes(4).toString("hex");
let numbers = 0;

function client(options = {}) {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  };
  return new GoTrueClient({ url, storage, autoRefreshToken: false, detectSessionInUrl: false, ...options });
}

function admin(token = serviceRole) {
  const headers = { Authorization: `Bearer ${token}` };
  return new GoTrueClient({ url, headers, persistSession: false, autoRefreshToken: false }).admin;
}

const address = () => `auth-js-${RUN}-${++numbers}@example.com`;

/** The code and the link of the numbered mail to an address, once it is there. */
async function mail(to, number = 1) {
  for (let tries = 0; tries < 400; tries++) {
    const found = readdirSync(mails).filter((name) => name.endsWith(`-${to}.eml`)).sort();
    if (found.length >= number) {
      const text = readFileSync(`${mails}/${found[number - 1]}`, "utf8");
      return { code: /^\s+(\d{6})\s*$/m.exec(text)?.[1], link: /(http\S+verify\?\S+)/.exec(text)?.[1] };
    }
    await sleep(50);
  }
  throw new Error(`mail ${number} did not come`);
}

/** What a call gave; its error, where it has one, fails the flow. */
async function good(call) {
  const { data, error } = await call;
  assert.equal(error, null);
  return data;
}

/** The call is refused with this code. */
async function refused(code, call) {
  const { error } = await call;
  assert.equal(error?.code, code);
  return error;
}

/** A client with a session, and the address. */
async function signedUp(one = client()) {
  const email = address();
  const made = await good(one.signUp({ email, password: PASSWORD }));
  assert.equal(made.session, null);
  assert.equal(made.user.email, email);
  const { code } = await mail(email);
  assert.ok((await good(one.verifyOtp({ type: "signup", email, token: code }))).session);
  return [one, email];
}

function totp(secret) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret.replace(/=/g, "")].map((c) => alphabet.indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const digest = createHmac("sha1", key).update(counter).digest();
  const number = digest.readUInt32BE(digest[digest.length - 1] & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

async function signOut(scope, otherLives) {
  const [one, email] = await signedUp();
  const other = client();
  const { session } = await good(other.signInWithPassword({ email, password: PASSWORD }));
  assert.equal((await one.signOut({ scope })).error, null);
  const { error } = await client().getUser(session.access_token);
  assert.equal(error === null, otherLives);
}

const FLOWS = {
  async sign_up_and_confirm() {
    await signedUp();
  },
  async sign_in() {
    const [, email] = await signedUp();
    assert.ok((await good(client().signInWithPassword({ email, password: PASSWORD }))).session);
  },
  async wrong_password() {
    const [, email] = await signedUp();
    await refused("invalid_credentials", client().signInWithPassword({ email, password: "x" }));
  },
  async weak_password() {
    const error = await refused("weak_password", client().signUp({ email: address(), password: "abc" }));
    assert.equal(error.name, "AuthWeakPasswordError");
    assert.deepEqual(error.reasons, ["length"]);
  },
  async get_and_update_user() {
    const [one, email] = await signedUp();
    assert.equal((await good(one.getUser())).user.email, email);
    assert.equal((await good(one.updateUser({ data: { a: 1 } }))).user.user_metadata.a, 1);
    await good(one.updateUser({ password: OTHER }));
    assert.ok((await good(client().signInWithPassword({ email, password: OTHER }))).session);
  },
  async refresh() {
    const [one] = await signedUp();
    const before = (await good(one.getSession())).session.refresh_token;
    assert.notEqual((await good(one.refreshSession())).session.refresh_token, before);
  },
  async concurrent_refresh() {
    const [one] = await signedUp();
    const { refresh_token } = (await good(one.getSession())).session;
    const tabs = [1, 2, 3, 4, 5].map(() => good(client().refreshSession({ refresh_token })));
    for (const tab of await Promise.all(tabs)) assert.ok(tab.session);
  },
  async get_claims() {
    const [one, email] = await signedUp();
    assert.equal((await good(one.getClaims())).claims.email, email);
  },
  async one_time_code() {
    const email = address();
    await good(client().signInWithOtp({ email }));
    const { code } = await mail(email);
    assert.ok((await good(client().verifyOtp({ type: "email", email, token: code }))).session);
  },
  async resend() {
    const email = address();
    await good(client().signUp({ email, password: PASSWORD }));
    await good(client().resend({ type: "signup", email }));
    const { code } = await mail(email, 2);
    assert.ok((await good(client().verifyOtp({ type: "signup", email, token: code }))).session);
  },
  async recover() {
    const [, email] = await signedUp();
    await good(client().resetPasswordForEmail(email));
    const { code } = await mail(email, 2);
    assert.ok((await good(client().verifyOtp({ type: "recovery", email, token: code }))).session);
  },
  async reauthenticate() {
    const [one, email] = await signedUp();
    await good(one.reauthenticate());
    const { code } = await mail(email, 2);
    await good(one.updateUser({ password: OTHER, nonce: code }));
  },
  async email_change() {
    const [one, old] = await signedUp();
    const email = address();
    assert.equal((await good(one.updateUser({ email }))).user.new_email, email);
    const first = await good(one.verifyOtp({ type: "email_change", email, token: (await mail(email)).code }));
    assert.equal(first.session, null);
    const token = (await mail(old, 2)).code;
    assert.equal((await good(one.verifyOtp({ type: "email_change", email: old, token }))).user.email, email);
  },
  async pkce() {
    const one = client({ flowType: "pkce" });
    const email = address();
    await good(one.signInWithOtp({ email }));
    const link = new URL((await mail(email)).link);
    const looked = await fetch(link); // as a mail scanner does: it must burn nothing
    assert.equal(looked.status, 200);
    const button = { method: "POST", redirect: "manual", body: new URLSearchParams(link.searchParams) };
    const led = await fetch(link.origin + link.pathname, button);
    const code = new URL(led.headers.get("location")).searchParams.get("code");
    const stranger = client({ flowType: "pkce" });
    await stranger.signInWithOtp({ email: address() }); // so that it has a verifier, of another flow
    await refused("bad_code_verifier", stranger.exchangeCodeForSession(code));
    assert.equal((await good(one.exchangeCodeForSession(code))).session.user.email, email);
  },
  async second_factor() {
    const [one] = await signedUp();
    const factor = await good(one.mfa.enroll({ factorType: "totp", friendlyName: "phone" }));
    assert.ok(factor.totp.qr_code.startsWith("data:image/svg+xml"));
    const challenge = await good(one.mfa.challenge({ factorId: factor.id }));
    const answer = { factorId: factor.id, challengeId: challenge.id, code: totp(factor.totp.secret) };
    assert.ok((await good(one.mfa.verify(answer))).access_token);
    assert.equal((await good(one.mfa.listFactors())).totp.length, 1);
    assert.equal((await good(one.mfa.getAuthenticatorAssuranceLevel())).currentLevel, "aal2");
    assert.equal((await good(one.mfa.unenroll({ factorId: factor.id }))).id, factor.id);
  },
  sign_out_global: () => signOut("global", false),
  sign_out_local: () => signOut("local", true),
  sign_out_others: () => signOut("others", false),
  async administration() {
    const email = address();
    const { user } = await good(admin().createUser({ email, password: PASSWORD, email_confirm: true }));
    assert.equal((await good(admin().getUserById(user.id))).user.email, email);
    const listed = await good(admin().listUsers({ page: 1, perPage: 5 }));
    assert.ok(listed.users.length && listed.total > 0 && listed.lastPage > 0);
    const changed = await good(admin().updateUserById(user.id, { user_metadata: { k: 1 } }));
    assert.deepEqual(changed.user.user_metadata, { k: 1 });
    for (const type of ["magiclink", "recovery"]) {
      const { properties } = await good(admin().generateLink({ type, email }));
      const verified = await good(client().verifyOtp({ type, token_hash: properties.hashed_token }));
      assert.ok(verified.session);
    }
    assert.ok((await good(admin().inviteUserByEmail(address()))).user.invited_at);
    await good(admin().deleteUser(user.id));
    await refused("user_not_found", admin().getUserById(user.id));
  },
  async administration_of_states() {
    const email = address();
    const { user } = await good(admin().createUser({ email, password_hash: HASHED, email_confirm: true }));
    await good(client().signInWithPassword({ email, password: PASSWORD }));
    await good(admin().updateUserById(user.id, { ban_duration: "24h" }));
    await refused("user_banned", client().signInWithPassword({ email, password: PASSWORD }));
    await good(admin().updateUserById(user.id, { ban_duration: "none" }));
    await good(client().signInWithPassword({ email, password: PASSWORD }));
    await refused("validation_failed", admin().updateUserById(user.id, { phone: "+4915112345678" }));
    await good(admin().deleteUser(user.id, true));
    await refused("invalid_credentials", client().signInWithPassword({ email, password: PASSWORD }));
    assert.notEqual((await good(admin().getUserById(user.id))).user.email, email);
    assert.notEqual((await good(admin().createUser({ email, password: PASSWORD }))).user.id, user.id);
    await good(admin().deleteUser(user.id));
    await refused("user_not_found", admin().getUserById(user.id));
  },
  async administration_is_not_for_users() {
    const [one] = await signedUp();
    await refused("not_admin", admin((await good(one.getSession())).session.access_token).listUsers());
  },
};

for (const [flow, run] of Object.entries(FLOWS)) {
  let error = "";
  try {
    await run();
  } catch (wrong) {
    error = String(wrong?.stack ?? wrong);
  }
  console.log(JSON.stringify({ flow, error }));
}
