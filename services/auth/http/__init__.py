"""The HTTP face `/auth/v1/*`: Supabase Auth's, thin over the same use cases as the gRPC face."""

from services.auth.http.app import create_app

__all__ = ["create_app"]
