#!/usr/bin/env bash
# Installs, on Debian, what the tests need and this machine lacks: clients to drive, and a C compiler for the race detector.
set -euo pipefail
cd "$(dirname "$0")"
packages=()
need() { # need COMMAND PACKAGE…
  command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}")
}
need gcc gcc libc6-dev
need curl curl
need wget wget
need git git
need java default-jdk-headless
need javac default-jdk-headless
need node nodejs npm
need npm npm
need openssl openssl
need redis-server redis-server # started by the tests, each on a port and in a folder of its own
need promtool prometheus # the tests of deploy/prometheus
[ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
# The Python clients are Debian's own, so they go with Debian's interpreter.
if ! /usr/bin/python3 -c 'import requests, httpx, aiohttp' >/dev/null 2>&1; then
  packages+=(python3 python3-requests python3-httpx python3-aiohttp)
fi
if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null 2>&1 || { echo "please install: ${packages[*]}"; exit 1; }
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [ ! -d clients/node/node_modules/undici ] || [ ! -d clients/node/node_modules/axios ]; then
  (cd clients/node && npm ci --no-audit --no-fund --silent)
fi
