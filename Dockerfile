# Rillway as a small image: one binary and the C library, no shell, no package manager, not root.
#
#   docker build -t rillway .          (BuildKit; or: buildah build -t rillway .)
#   docker run --rm -v "$PWD/rillway.toml:/etc/rillway/rillway.toml:ro" \
#       -v rillway:/var/lib/rillway -p 127.0.0.1:9552:9552 rillway
#
# To pin the bases for good, give each by digest: --build-arg BUILDER=rust@sha256:…

ARG BUILDER=docker.io/library/rust:1.95.0-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS builder
# The image brings the C compiler that zstd and rustls' cryptography want. The runtime's libc must be
# no older than this stage's: both are Debian 12.
WORKDIR /src
COPY . .
# The caches stay on the builder's machine and out of the image, so the binary is copied out of them
# in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features otel --bin rillway \
    && install -D --mode=0755 target/release/rillway /out/usr/local/bin/rillway \
    && install -d --mode=0755 /out/etc/rillway \
    && install -d --mode=0750 --owner=65532 --group=65532 /out/var/lib/rillway

FROM ${RUNTIME}
LABEL org.opencontainers.image.title="rillway" \
      org.opencontainers.image.description="Carries RabbitMQ streams into sinks, and never loses a message" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=builder /out/usr /usr
COPY --from=builder /out/etc /etc
# The owner is given anew: not every builder keeps that of the first stage.
COPY --from=builder --chown=65532:65532 /out/var/lib/rillway /var/lib/rillway
# The address is that of the container's own interface: what is published to the host is the
# operator's choice (-p 127.0.0.1:9552:9552).
ENV RILLWAY_CONFIG=/etc/rillway/rillway.toml \
    RILLWAY__STATE_DIR=/var/lib/rillway \
    RILLWAY__ADMIN__LISTEN=0.0.0.0:9552
USER 65532:65532
WORKDIR /var/lib/rillway
VOLUME ["/var/lib/rillway"]
EXPOSE 9552
# SIGTERM drains and commits within shutdown_grace (10 s), which is also what `docker stop` waits:
# stop with more (docker stop -t 30, stop_grace_period).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/rillway", "health"]
ENTRYPOINT ["/usr/local/bin/rillway"]
CMD ["run"]
