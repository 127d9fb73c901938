-- migrate:up
-- WebAuthn credentials as second factors. Only columns and a wider check are added: the version before reads the
-- factors that it knows as it did.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
    IF NOT signgate.owns_auth() THEN
        RETURN;
    END IF;
    SET LOCAL ROLE signgate_owner;

    ALTER TABLE auth.mfa_factors
        ADD COLUMN IF NOT EXISTS credential_id bytea,   -- the authenticator's name for the key pair
        ADD COLUMN IF NOT EXISTS public_key bytea,      -- COSE (RFC 9052)
        ADD COLUMN IF NOT EXISTS sign_count bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS transports text[] NOT NULL DEFAULT '{}';
    ALTER TABLE auth.mfa_factors ALTER COLUMN secret DROP NOT NULL;
    ALTER TABLE auth.mfa_factors DROP CONSTRAINT IF EXISTS mfa_factors_factor_type_check;
    ALTER TABLE auth.mfa_factors DROP CONSTRAINT IF EXISTS mfa_factors_kind;
    -- A TOTP factor has a secret. A WebAuthn factor has a credential as soon as it is verified.
    ALTER TABLE auth.mfa_factors ADD CONSTRAINT mfa_factors_kind CHECK (
        CASE factor_type
            WHEN 'totp' THEN secret IS NOT NULL AND credential_id IS NULL AND public_key IS NULL
            WHEN 'webauthn' THEN secret IS NULL
                AND (credential_id IS NULL) = (public_key IS NULL)
                AND (status = 'unverified') = (credential_id IS NULL)
            ELSE false
        END
    );
    -- One credential belongs to one account.
    CREATE UNIQUE INDEX IF NOT EXISTS mfa_factors_credential ON auth.mfa_factors (credential_id)
        WHERE credential_id IS NOT NULL;

    -- What a WebAuthn challenge asked to be signed; NULL for TOTP.
    ALTER TABLE auth.mfa_challenges ADD COLUMN IF NOT EXISTS webauthn bytea;
    RESET ROLE;
END
$$;

-- migrate:down
-- Forward only: a later migration mends an earlier one.
