# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /httpowerd ./cmd/httpowerd \
 && mkdir -p /rootfs/etc/ssl/certs /rootfs/etc/httpowerd /rootfs/var/lib/httpowerd /rootfs/tmp \
 && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
 && chmod 1777 /rootfs/tmp \
 && chown -R 65532:65532 /rootfs/var/lib/httpowerd

FROM scratch
COPY --from=build /rootfs /
COPY --from=build /httpowerd /httpowerd
USER 65532:65532
# Everybody on the container's network may use the proxy, nobody beyond: `private` admits private and loopback addresses only.
ENV HTTPOWERD_LISTEN=0.0.0.0:3128 \
    HTTPOWERD_ADMIN=0.0.0.0:9128 \
    HTTPOWERD_OPEN=private \
    XDG_STATE_HOME=/var/lib
VOLUME /var/lib/httpowerd
EXPOSE 3128 9128
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/httpowerd", "healthcheck"]
ENTRYPOINT ["/httpowerd"]
CMD ["serve"]
