"""The use cases, in groups. No transport, no driver: both faces stand on these objects alone."""

from __future__ import annotations

from services.auth.service.admin import Admin
from services.auth.service.confirm import Confirm
from services.auth.service.factors.recovery import RecoveryCodes
from services.auth.service.kit import Kit, Rules
from services.auth.service.mfa import Mfa
from services.auth.service.notices import Notices
from services.auth.service.otp import Otp
from services.auth.service.profile import Change, Profile
from services.auth.service.redeeming import Redeemed
from services.auth.service.sessions import Sessions
from services.auth.service.signin import SignIn
from services.auth.service.signup import SignedUp, SignUp
from services.auth.service.verify import Followed, Verify

__all__ = ["AuthService", "Change", "Followed", "Kit", "Redeemed", "Rules", "SignedUp"]


class AuthService:
    """All use cases over one kit."""

    def __init__(self, kit: Kit) -> None:
        self.tokens, self.rules = kit.tokens, kit.rules
        self.signup = SignUp(kit)
        self.signin = SignIn(kit)
        self.sessions = Sessions(kit)
        self.verify = Verify(kit)
        self.otp = Otp(kit)
        self.profile = Profile(kit)
        self.confirm = Confirm(kit)
        self.mfa = Mfa(kit)
        self.recovery = RecoveryCodes(kit)
        self.admin = Admin(kit)
        self.notices = Notices(kit)
