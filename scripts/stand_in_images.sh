#!/usr/bin/env bash
# Stand-ins for the two images that Docker Hub has, made of Debian's packages where nothing can be pulled (as root):
#   scripts/stand_in_images.sh python:3.11-slim-bookworm    debootstrap and the CPython 3.11 that PYTHON names
#   scripts/stand_in_images.sh postgres:17-bookworm         the first one and Debian's PostgreSQL
# They take this machine's package sources and certificates, so they are for tests on it alone.
set -euo pipefail
image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make_python() {
  local root=$work/root python
  python=$("${PYTHON:-python3}" -c "import sys; print(sys.base_prefix)")
  [ "$python" != /usr ] || { echo "PYTHON: Debian's own, which cannot be copied; name another CPython 3.11" >&2; exit 2; }
  DPKG_FORCE=unsafe-io debootstrap --variant=minbase --include=ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libreadline8,libbz2-1.0,liblzma5,libncursesw6,libuuid1,libexpat1,libgdbm6,libdb5.3 \
    bookworm "$root" "$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)"
  tar -C "$python" --exclude='lib/python3.11/site-packages/*' --exclude='lib/python3.11/test' --exclude=__pycache__ \
    --exclude='lib/python3.11/lib-dynload/_tkinter*' --exclude='lib/python3.11/config-*' --exclude='bin/*' -c . |
    tar -C "$root/usr/local" -x
  cp -a "$python/bin/python3.11" "$root/usr/local/bin/"
  ln -sf python3.11 "$root/usr/local/bin/python3"
  ln -sf python3 "$root/usr/local/bin/python"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
  : > "$root/etc/apt/sources.list"
  chroot "$root" ldconfig
  chroot "$root" python -m ensurepip
  rm -rf "$root"/usr/share/{doc,man,info,locale}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
  tar -C "$root" -c . | docker import - "$image"
}

make_postgres() {
  cat > "$work/entrypoint.sh" <<'SCRIPT'
#!/bin/sh
# What compose.yaml needs of the official image: a database, a user and a password from the environment.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin) data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
  chown postgres: "$data"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0"
fi
if [ ! -s "$data/PG_VERSION" ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/password
  "$bin/initdb" --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password --auth-host scram-sha-256 --auth-local trust
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  "$bin/pg_ctl" --pgdata "$data" --options "-c listen_addresses=''" --wait start
  "$bin/createdb" --username "$POSTGRES_USER" --host /var/run/postgresql "$POSTGRES_DB"
  "$bin/pg_ctl" --pgdata "$data" --wait stop
fi
exec "$bin/postgres" -D "$data" -c listen_addresses='*'
SCRIPT
  chmod +x "$work/entrypoint.sh"
  cat > "$work/Dockerfile" <<'FILE'
FROM python:3.11-slim-bookworm
RUN echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/fast && apt-get update && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* && mkdir -p /var/lib/postgresql/data
COPY entrypoint.sh /usr/local/bin/
ENTRYPOINT ["entrypoint.sh"]
FILE
  DOCKER_BUILDKIT=1 docker build --network host --tag "$image" "$work"
}

case $image in
  python:*) make_python ;;
  postgres:*) make_postgres ;;
  *) echo "no stand-in for $image" >&2 && exit 2 ;;
esac
