"""Auth owns accounts: `signgate.auth.v1.AuthService` and `AuthAdminService`, the HTTP face `/auth/v1/*`,
the tables `auth.*`, the last login, tier and activity in `public.users`, the keys that access tokens are
signed with, and the deny-set of revoked sessions in Redis.
"""
