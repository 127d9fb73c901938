"""The gRPC face: protobuf ↔ domain, one method an RPC; no SQL, no rules."""

from services.auth.servicer.accounts import AuthServicer
from services.auth.servicer.admin import AuthAdminServicer
from services.auth.servicer.notices import NoticeServicer

__all__ = ["AuthAdminServicer", "AuthServicer", "NoticeServicer"]
