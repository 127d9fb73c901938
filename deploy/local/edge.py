"""What the local stack's Envoy is told."""

from __future__ import annotations

from deploy.envoy.render import Edge, Endpoint
from deploy.local.layout import HOST, ROOT, Layout


def local_edge(layout: Layout) -> Edge:
    """The edge on this machine, in front of every instance there is."""

    def endpoints(kind: str) -> dict[str, list[Endpoint]]:
        found: dict[str, list[Endpoint]] = {}
        for instance in layout.instances():
            if kind in instance.service.ports:
                port = instance.port(kind)
                reached = Endpoint(HOST, layout.detours.get(port, port))
                found.setdefault(instance.service.name, []).append(reached)
        return found

    return Edge(
        listen=Endpoint(HOST, layout.port("edge")),
        admin=Endpoint(HOST, layout.port("envoy_admin")),
        metrics=Endpoint(HOST, layout.port("envoy_metrics")),
        discovery="STATIC",
        grpc=endpoints("grpc"),
        http=endpoints("http"),
        console=ROOT / "console" / "dist",
        descriptors=ROOT / "gen" / "signgate.binpb",
        plugins=ROOT / "deploy" / "envoy" / "plugins",
        proof=layout.secrets / "edge_proof",
        sds=layout.run,
        certificate=layout.certificate,
        key=layout.certificate_key,
        services_ca=layout.secrets / "tls_ca.pem" if layout.tls else None,
        tracing=layout.tracing,
    )
