# The control plane as an image, for docker-compose.yml. The runner's image is not made here: `nexaas image build` does that,
# through the engine's API, from the runner in this image.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p nexaas -p nexaas-runner --bins \
 && mkdir /out && find target -path '*/release/nexaas' -type f -exec cp {} /out/ \; \
 && find target -path '*/release/nexaas-runner' -type f -exec cp {} /out/ \;

FROM debian:12-slim
# PostgreSQL's programs for the private database; busybox, certificates and zones go into the runner's image.
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql busybox-static ca-certificates tzdata tini \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql
COPY --from=build /out/nexaas /out/nexaas-runner /usr/local/lib/nexaas/
COPY framework /usr/local/lib/nexaas/framework
COPY templates /usr/local/lib/nexaas/templates
RUN ln -s /usr/local/lib/nexaas/nexaas /usr/local/bin/nexaas
VOLUME /var/lib/nexaas
ENTRYPOINT ["tini", "--", "nexaas"]
CMD ["serve"]
