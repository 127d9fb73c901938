/** The services, called as the signed-in user. */
import { createClient } from "@connectrpc/connect";
import { AuthService } from "./gen/signgate/auth/v1/auth_pb.ts";
import { KeysService } from "./gen/signgate/keys/v1/keys_pb.ts";
import { QuotaService } from "./gen/signgate/quota/v1/quota_pb.ts";
import { SignerService } from "./gen/signgate/signer/v1/signer_pb.ts";
import { UsageService } from "./gen/signgate/usage/v1/usage_pb.ts";
import { authorize } from "./session.ts";
import { transport } from "./transport.ts";

const signedIn = transport(authorize);

export const account = createClient(AuthService, signedIn);
export const keys = createClient(KeysService, signedIn);
export const quotas = createClient(QuotaService, signedIn);
export const signer = createClient(SignerService, signedIn);
export const usage = createClient(UsageService, signedIn);

/** What anyone may ask: verification, engines. */
export const open = createClient(SignerService, transport());
