"""The signer: turns a room URL and a credential into a signed URL that is counted.

Owns:

* public RPCs: `signgate.signer.v1.SignerService` (`Sign`, `SignBatch`, `SignStream`,
  `VerifySignature`, `ListEngines`), and the HTTP face `/webcast/*` and `/tiktok/*`;
* the engines that sign, and the key material that they sign with;
* the writing end of the usage streams `usage:{0}` to `usage:{N-1}` (the logger reads them).

Owns no table and has no access to the database. It asks `keys` who a credential is and `quota`
whether the caller may sign; it answers with a signature only after the usage event is in the
stream.
"""
