"""gRPC for every service: serving, calling, and errors on the wire.

status.py   the error tree to `google.rpc.Status` and back
server.py   `create_server`: context, access policy, authentication, errors and metrics round
            every method, wrapped once at registration rather than intercepted on each call
bounds.py   what each field of a request may hold, checked before anything else
client.py   `create_channel`: the same for calls to peers
limits.py   RateLimit trailing metadata
"""

from servicekit.rpc.client import create_channel
from servicekit.rpc.limits import set_rate_limit
from servicekit.rpc.server import RpcServer, create_server
from servicekit.rpc.status import from_status, to_status

__all__ = ["RpcServer", "create_channel", "create_server", "from_status", "set_rate_limit", "to_status"]
