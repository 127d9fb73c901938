/** Passkeys: what the service asks of the browser, and the browser's answer as the contract has it. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Ceremony, type ChallengeFactorResponse, type PasskeyResponseSchema } from "./gen/signgate/auth/v1/auth_pb.ts";

type Answer = MessageInitShape<typeof PasskeyResponseSchema>;

/** Whether this browser can be asked at all. */
export const offered = () =>
  typeof PublicKeyCredential !== "undefined" && "parseCreationOptionsFromJSON" in PublicKeyCredential;

/** Where the console is used, for the service to compare. */
export const relyingParty = () => ({ origins: [location.origin] });

/** The user's own authenticator answers the challenge. Throws what `explain` can tell of. */
export async function answer(challenge: ChallengeFactorResponse): Promise<Answer> {
  const options: unknown = JSON.parse(challenge.optionsJson);
  try {
    return challenge.ceremony === Ceremony.CREATE ? await created(options) : await signed(options);
  } catch (error) {
    throw new ConnectError(said(error), Code.Canceled);
  }
}

async function created(options: unknown): Promise<Answer> {
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options as PublicKeyCredentialCreationOptionsJSON);
  const { rawId, response } = given(await navigator.credentials.create({ publicKey }));
  if (!(response instanceof AuthenticatorAttestationResponse)) throw new TypeError("the browser created no passkey");
  return {
    ceremony: Ceremony.CREATE,
    relyingParty: relyingParty(),
    credentialId: bytes(rawId),
    clientData: bytes(response.clientDataJSON),
    attestationObject: bytes(response.attestationObject),
    transports: response.getTransports(),
  };
}

async function signed(options: unknown): Promise<Answer> {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options as PublicKeyCredentialRequestOptionsJSON);
  const { rawId, response } = given(await navigator.credentials.get({ publicKey }));
  if (!(response instanceof AuthenticatorAssertionResponse)) throw new TypeError("the browser used no passkey");
  return {
    ceremony: Ceremony.REQUEST,
    relyingParty: relyingParty(),
    credentialId: bytes(rawId),
    clientData: bytes(response.clientDataJSON),
    authenticatorData: bytes(response.authenticatorData),
    signature: bytes(response.signature),
    userHandle: response.userHandle ? bytes(response.userHandle) : new Uint8Array(),
  };
}

function given(credential: Credential | null): PublicKeyCredential {
  if (!(credential instanceof PublicKeyCredential)) throw new TypeError("the browser has no passkey");
  return credential;
}

const bytes = (buffer: ArrayBuffer) => new Uint8Array(buffer);

/** Browsers tell by name only what went wrong, and little of it: a page could learn which passkeys there are. */
function said(error: unknown): string {
  switch (error instanceof DOMException ? error.name : "") {
    case "InvalidStateError":
      return "This authenticator has a passkey of this account already.";
    case "SecurityError":
      return "Passkeys can't be used at this address. Open the console by the deployment's domain name.";
    default:
      return "The passkey was not used: the browser's dialog was closed, or it took too long.";
  }
}
